//! What every broker must do alike, stated once and run against each: delivery, settlement, and traces as they are exported.
#![allow(dead_code, reason = "a broker without a capability does not run the cases that need it")]

pub(crate) mod delivery;
pub(crate) mod hostile;
pub(crate) mod settlement;
pub(crate) mod telemetry;
mod world;

pub(crate) use world::World;

/// Makes one test of each case for the broker whose URL the expression gives.
macro_rules! contract {
    ($url:expr) => {
        /// What this broker does as all do.
        mod alike {
        crate::contract::contract!(@cases $url, delivery:
            confirms_and_delivers_exactly_what_was_sent
            keeps_the_callers_order_with_many_in_flight
            shares_within_a_group_and_copies_to_each_group
            gives_a_new_group_the_backlog
            starts_an_ephemeral_reader_at_the_latest
            bounds_what_is_unsettled
            carries_a_tombstone_or_says_unsupported
            refuses_bad_names_and_bounds
            closes_once_and_for_all
            is_described_in_the_readme
        );
        crate::contract::contract!(@cases $url, settlement:
            counts_attempts_until_acknowledged
            delays_a_retry
            hands_out_again_what_was_dropped
            brings_acknowledgements_to_the_broker_before_closing
            fails_to_settle_after_close
            copies_rejected_messages_to_the_dead_letter_topic
            discards_without_a_dead_letter_topic
            retries_when_the_dead_letter_cannot_be_published
            contains_a_panic
            treats_at_most_once_as_handled
        );
        crate::contract::contract!(@cases $url, telemetry:
            makes_one_trace_of_send_and_process
            keeps_retries_in_the_trace
            gives_each_message_of_a_batch_its_own_context
            keeps_the_creation_context_when_forwarding
            carries_unsampled_contexts
            carries_contexts_without_an_sdk
            uses_the_users_propagator
            carries_tracestate_and_baggage
            never_mixes_contexts_of_concurrent_deliveries
            ends_the_span_of_a_cancelled_handler
            keeps_the_receiving_loop_out_of_the_trace
            links_instead_of_parenting_when_asked
        );
        crate::contract::contract!(@cases $url, hostile:
            delivers_messages_with_hostile_context
        );
        }
    };
    (@cases $url:expr, $module:ident: $($case:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let world = crate::contract::World::new(&$url, stringify!($case)).await;
                    crate::contract::$module::$case(&world).await;
                }
            )*
        }
    };
}
pub(crate) use contract;

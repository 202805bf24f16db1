//! Faults in the transport of contexts or in the spans, and the cases about broken traces that
//! detect them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::harness::check_traces;
use crate::headers::HeaderFault;
use crate::propagators::PropagatorFault;
use crate::spans::SpanFault;
use crate::trace_harness::{TraceFault, TraceHarness};

/// Creates a test for each fault of a kind, with the cases that it fails.
macro_rules! faults {
    ($kind:ident $faults:ident $every:ident: $($name:ident: $fault:ident => [$($case:literal),*];)*) => {
        $(
            #[test]
            fn $name() {
                let fault = TraceFault::$kind($faults::$fault);
                check_traces(Arc::new(TraceHarness::new(fault)), &[$($case),*], stringify!($fault));
            }
        )*

        #[test]
        fn $every() {
            let tried: BTreeSet<String> = [$($faults::$fault),*].iter().map(|fault| format!("{fault:?}")).collect();
            assert_eq!(tried.len(), $faults::COUNT, "each fault has one test");
        }
    };
}

faults! { Header HeaderFault every_fault_of_headers_is_tried:
    driver_passes_without_a_fault: None => [];
    driver_drops_one_context_in_a_hundred: DropsOneContextInAHundred => [
        "stress::b17_none_of_a_hundred_thousand_sees_anothers_context",
        "trace::b04_each_message_of_a_batch_has_its_own_context",
        "trace::b05_a_batch_is_one_span_that_links_every_message",
        "trace::b06_a_batch_of_more_than_128_drops_no_link",
        "trace::b17_concurrent_deliveries_never_mix_contexts"
    ];
    driver_garbles_one_span_id_in_a_hundred: GarblesOneSpanIdInAHundred => [
        "stress::b17_none_of_a_hundred_thousand_sees_anothers_context",
        "trace::b04_each_message_of_a_batch_has_its_own_context",
        "trace::b05_a_batch_is_one_span_that_links_every_message",
        "trace::b06_a_batch_of_more_than_128_drops_no_link"
    ];
    driver_doubles_contexts: DoublesContexts => [
        "trace::b08_a_publish_writes_each_header_once",
        "trace::b08_each_header_stays_one_over_retries_and_dead_letters",
        "trace::b20_a_forward_keeps_the_messages_context",
        "trace::b20_a_publish_takes_the_callers_context",
        "trace::b21_handlers_see_the_headers_of_the_wire",
        "trace::b26_contexts_lie_on_the_wire_as_text_under_lower_case_names"
    ];
    driver_doubles_contexts_of_dead_letters: DoublesContextsOfDeadLetters => ["trace::b08_each_header_stays_one_over_retries_and_dead_letters"];
    driver_upper_cases_names: UpperCasesNames => [
        "trace::b21_handlers_see_the_headers_of_the_wire",
        "trace::b26_contexts_lie_on_the_wire_as_text_under_lower_case_names"
    ];
    driver_renames_contexts: RenamesContexts => [
        "stress::b17_none_of_a_hundred_thousand_sees_anothers_context",
        "trace::b01_every_reference_leads_to_an_exported_span",
        "trace::b08_a_publish_writes_each_header_once",
        "trace::b08_each_header_stays_one_over_retries_and_dead_letters",
        "trace::b09_a_dead_letter_is_what_its_consumer_makes_of_it",
        "trace::b09_a_dead_letter_keeps_its_trace",
        "trace::b12_flags_travel_as_they_came_without_an_sdk",
        "trace::b12_the_sampled_flag_is_neither_forced_nor_cleared",
        "trace::b13_tracestate_and_baggage_survive",
        "trace::b15_contexts_stay_without_an_sdk_when_messages_come_again",
        "trace::b15_contexts_travel_without_an_sdk",
        "trace::b20_a_forward_keeps_the_messages_context",
        "trace::b20_a_publish_takes_the_callers_context",
        "trace::b21_handlers_see_the_headers_of_the_wire",
        "trace::b26_contexts_lie_on_the_wire_as_text_under_lower_case_names",
        "trace::b34_a_bridge_is_one_trace"
    ];
    driver_reverses_trace_states: ReversesTraceStates => [
        "trace::b13_tracestate_and_baggage_survive",
        "trace::b21_handlers_see_the_headers_of_the_wire",
        "trace::b25_doubled_headers_are_read_as_documented"
    ];
    driver_strips_trace_states: StripsTraceStates => [
        "trace::b08_a_publish_writes_each_header_once",
        "trace::b08_each_header_stays_one_over_retries_and_dead_letters",
        "trace::b13_tracestate_and_baggage_survive",
        "trace::b21_handlers_see_the_headers_of_the_wire",
        "trace::b23_a_header_is_found_in_any_case",
        "trace::b25_doubled_headers_are_read_as_documented"
    ];
    driver_strips_baggage: StripsBaggage => [
        "stress::b17_none_of_a_hundred_thousand_sees_anothers_context",
        "trace::b08_a_publish_writes_each_header_once",
        "trace::b08_each_header_stays_one_over_retries_and_dead_letters",
        "trace::b13_tracestate_and_baggage_survive",
        "trace::b17_concurrent_deliveries_never_mix_contexts",
        "trace::b21_handlers_see_the_headers_of_the_wire",
        "trace::b23_a_header_is_found_in_any_case",
        "trace::b25_doubled_headers_are_read_as_documented",
        "trace::b26_contexts_lie_on_the_wire_as_text_under_lower_case_names",
        "trace::b35_a_trust_boundary_gives_nothing_but_the_ids",
        "trace::b35_a_trust_boundary_takes_nothing_but_the_ids",
        "trace::b36_hostile_baggage_does_not_reach_the_next_hop"
    ];
    driver_forces_the_sampled_flag: ForcesTheSampledFlag => [
        "stress::b17_none_of_a_hundred_thousand_sees_anothers_context",
        "trace::b11_an_unsampled_context_travels",
        "trace::b11_contexts_travel_when_nothing_is_sampled",
        "trace::b12_flags_travel_as_they_came_without_an_sdk",
        "trace::b12_the_sampled_flag_is_neither_forced_nor_cleared",
        "trace::b21_handlers_see_the_headers_of_the_wire",
        "trace::b25_doubled_headers_are_read_as_documented"
    ];
    driver_keeps_one_context_for_a_key: KeepsOneContextForAKey => [
        "trace::b04_each_message_of_a_batch_has_its_own_context",
        "trace::b05_a_batch_is_one_span_that_links_every_message",
        "trace::b06_a_batch_of_more_than_128_drops_no_link",
        "trace::b08_a_publish_writes_each_header_once",
        "trace::b11_contexts_travel_when_nothing_is_sampled",
        "trace::b12_flags_travel_as_they_came_without_an_sdk",
        "trace::b12_the_sampled_flag_is_neither_forced_nor_cleared",
        "trace::b21_handlers_see_the_headers_of_the_wire",
        "trace::b22_a_garbage_header_costs_the_context_and_nothing_else",
        "trace::b25_doubled_headers_are_read_as_documented",
        "trace::b32_what_is_replayed_is_linked",
        "trace::b35_a_redriven_message_takes_nothing_past_the_boundary"
    ];
    driver_mixes_contexts_under_load: MixesContextsUnderLoad => [
        "stress::b17_none_of_a_hundred_thousand_sees_anothers_context",
        "trace::b06_a_batch_of_more_than_128_drops_no_link",
        "trace::b17_concurrent_deliveries_never_mix_contexts"
    ];
    driver_loses_contexts_on_redelivery: LosesContextsOnRedelivery => [
        "stress::b17_none_of_a_hundred_thousand_sees_anothers_context",
        "trace::b07_each_retry_stays_in_the_trace",
        "trace::b07_retries_of_a_consumer_stay_in_the_trace",
        "trace::b08_each_header_stays_one_over_retries_and_dead_letters",
        "trace::b15_contexts_stay_without_an_sdk_when_messages_come_again",
        "trace::b28_errors_and_panics_are_on_the_span",
        "trace::b29_the_span_of_a_cancelled_handler_ends",
        "trace::b31_each_attempt_is_one_span_of_the_same_parent"
    ];
    driver_loses_contexts_of_dead_letters: LosesContextsOfDeadLetters => [
        "stress::b17_none_of_a_hundred_thousand_sees_anothers_context",
        "trace::b08_each_header_stays_one_over_retries_and_dead_letters",
        "trace::b09_a_dead_letter_is_what_its_consumer_makes_of_it",
        "trace::b09_a_dead_letter_keeps_its_trace",
        "trace::b15_contexts_stay_without_an_sdk_when_messages_come_again"
    ];
    driver_loses_contexts_of_delayed_messages: LosesContextsOfDelayedMessages => [
        "trace::b10_a_delayed_message_is_linked",
        "trace::b10_who_wants_a_delayed_message_in_the_trace_says_so"
    ];
    driver_loses_hops: LosesHops => [
        "trace::b10_a_delayed_message_is_linked",
        "trace::b10_a_scheduled_message_is_linked",
        "trace::b35_a_redriven_message_takes_nothing_past_the_boundary"
    ];
    driver_loses_policies: LosesPolicies => ["trace::b10_who_wants_a_delayed_message_in_the_trace_says_so"];
    driver_makes_contexts_up: MakesContextsUp => [
        "trace::b14_a_b3_header_alone_carries_the_trace",
        "trace::b14_the_users_propagator_is_used",
        "trace::b15_contexts_travel_without_an_sdk",
        "trace::b16_without_a_context_the_ambient_one_is_no_parent",
        "trace::b21_handlers_see_the_headers_of_the_wire",
        "trace::b24_a_name_that_a_server_changed_is_understood",
        "trace::b27_dialects_are_read_where_they_are_asked_for"
    ];
    driver_cleans_contexts: CleansContexts => ["trace::b21_handlers_see_the_headers_of_the_wire"];
    driver_loses_messages_with_garbage: LosesMessagesWithGarbage => [
        "trace::b16_without_a_context_the_ambient_one_is_no_parent",
        "trace::b21_handlers_see_the_headers_of_the_wire",
        "trace::b22_a_garbage_header_costs_the_context_and_nothing_else"
    ];
    driver_refuses_doubled_contexts: RefusesDoubledContexts => ["trace::b25_doubled_headers_are_read_as_documented"];
    driver_forgets_the_time: ForgetsTheTime => [
        "trace::b32_a_reader_of_the_past_links",
        "trace::b32_what_is_replayed_is_linked",
        "trace::b40_the_time_in_the_queue_is_never_negative",
        "trace::b40_the_time_in_the_queue_is_on_every_delivery"
    ];
}

faults! { Propagator PropagatorFault every_fault_of_propagators_is_tried:
    propagator_passes_without_a_fault: None => [];
    propagator_ignores_the_flags: IgnoresTheFlags => [
        "stress::b17_none_of_a_hundred_thousand_sees_anothers_context",
        "trace::b11_an_unsampled_context_travels",
        "trace::b11_contexts_travel_when_nothing_is_sampled",
        "trace::b12_flags_travel_as_they_came_without_an_sdk",
        "trace::b12_the_sampled_flag_is_neither_forced_nor_cleared"
    ];
    propagator_drops_unsampled_contexts: DropsUnsampledContexts => [
        "stress::b17_none_of_a_hundred_thousand_sees_anothers_context",
        "trace::b11_an_unsampled_context_travels",
        "trace::b11_contexts_travel_when_nothing_is_sampled",
        "trace::b12_flags_travel_as_they_came_without_an_sdk",
        "trace::b12_the_sampled_flag_is_neither_forced_nor_cleared"
    ];
    propagator_extracts_the_ambient_context: ExtractsTheAmbientContext => ["trace::b16_without_a_context_the_ambient_one_is_no_parent"];
    propagator_drops_baggage: DropsBaggage => [
        "stress::b17_none_of_a_hundred_thousand_sees_anothers_context",
        "trace::b08_a_publish_writes_each_header_once",
        "trace::b08_each_header_stays_one_over_retries_and_dead_letters",
        "trace::b13_tracestate_and_baggage_survive",
        "trace::b17_concurrent_deliveries_never_mix_contexts",
        "trace::b26_contexts_lie_on_the_wire_as_text_under_lower_case_names",
        "trace::b35_a_trust_boundary_gives_nothing_but_the_ids",
        "trace::b36_hostile_baggage_does_not_reach_the_next_hop"
    ];
    propagator_drops_trace_states: DropsTraceStates => [
        "trace::b08_each_header_stays_one_over_retries_and_dead_letters",
        "trace::b13_tracestate_and_baggage_survive",
        "trace::b23_a_header_is_found_in_any_case",
        "trace::b25_doubled_headers_are_read_as_documented"
    ];
    propagator_injects_twice: InjectsTwice => [];
    propagator_injects_the_origin: InjectsTheOrigin => [
        "trace::b04_each_message_of_a_batch_has_its_own_context",
        "trace::b08_a_publish_writes_each_header_once",
        "trace::b12_flags_travel_as_they_came_without_an_sdk",
        "trace::b12_the_sampled_flag_is_neither_forced_nor_cleared",
        "trace::b33_what_a_handler_publishes_is_a_child_of_its_process_span"
    ];
    propagator_leaks_baggage: LeaksBaggage => [
        "stress::b17_none_of_a_hundred_thousand_sees_anothers_context",
        "trace::b17_concurrent_deliveries_never_mix_contexts",
        "trace::b35_a_reply_takes_nothing_past_the_boundary"
    ];
}

faults! { Span SpanFault every_fault_of_spans_is_tried:
    telemetry_passes_without_a_fault: None => [];
    telemetry_loses_create_spans: LosesCreateSpans => [
        "trace::b01_every_reference_leads_to_an_exported_span",
        "trace::b04_each_message_of_a_batch_has_its_own_context",
        "trace::b05_a_batch_is_one_span_that_links_every_message",
        "trace::b06_a_batch_of_more_than_128_drops_no_link",
        "trace::b08_a_publish_writes_each_header_once",
        "trace::b30_a_failed_message_of_a_batch_is_on_its_spans"
    ];
    telemetry_takes_the_origin_for_the_parent: TakesTheOriginForTheParent => [
        "trace::b04_each_message_of_a_batch_has_its_own_context",
        "trace::b07_each_retry_stays_in_the_trace",
        "trace::b07_retries_of_a_consumer_stay_in_the_trace",
        "trace::b09_a_dead_letter_is_what_its_consumer_makes_of_it",
        "trace::b10_who_wants_a_delayed_message_in_the_trace_says_so",
        "trace::b14_a_b3_header_alone_carries_the_trace",
        "trace::b14_the_users_propagator_is_used",
        "trace::b18_messages_do_not_share_the_trace_of_a_consumer",
        "trace::b19_the_receiver_continues_the_send_span",
        "trace::b20_a_forward_keeps_the_messages_context",
        "trace::b20_a_publish_takes_the_callers_context",
        "trace::b28_errors_and_panics_are_on_the_span",
        "trace::b29_the_span_of_a_cancelled_handler_ends",
        "trace::b30_the_span_of_a_cancelled_publish_ends",
        "trace::b31_each_attempt_is_one_span_of_the_same_parent",
        "trace::b32_a_reader_of_the_past_links",
        "trace::b32_what_is_replayed_is_linked",
        "trace::b33_a_request_and_its_reply_are_one_trace",
        "trace::b33_what_a_handler_publishes_is_a_child_of_its_process_span",
        "trace::b34_a_bridge_is_one_trace",
        "trace::b35_a_trust_boundary_gives_nothing_but_the_ids",
        "trace::b38_a_job_is_linked_to_who_asked_for_it"
    ];
    telemetry_processes_end_at_once: ProcessesEndAtOnce => [
        "trace::b02_the_handlers_work_is_inside_its_process_span",
        "trace::b03_the_process_span_lasts_until_the_settlement",
        "trace::b19_the_receiver_continues_the_send_span",
        "trace::b29_the_span_of_a_cancelled_handler_ends",
        "trace::b37_a_handler_keeps_its_context_when_its_connection_closes"
    ];
    telemetry_processes_start_late: ProcessesStartLate => [
        "trace::b02_the_handlers_work_is_inside_its_process_span",
        "trace::b03_the_process_span_lasts_until_the_settlement",
        "trace::b19_the_receiver_continues_the_send_span",
        "trace::b29_the_span_of_a_cancelled_handler_ends",
        "trace::b37_a_handler_keeps_its_context_when_its_connection_closes"
    ];
    telemetry_sends_end_at_once: SendsEndAtOnce => ["trace::b30_the_send_span_lasts_until_the_confirm"];
    telemetry_drops_links: DropsLinks => [
        "trace::b04_each_message_of_a_batch_has_its_own_context",
        "trace::b05_a_batch_is_one_span_that_links_every_message",
        "trace::b06_a_batch_of_more_than_128_drops_no_link",
        "trace::b07_each_retry_stays_in_the_trace",
        "trace::b07_retries_of_a_consumer_stay_in_the_trace",
        "trace::b09_a_dead_letter_is_what_its_consumer_makes_of_it",
        "trace::b09_a_dead_letter_keeps_its_trace",
        "trace::b10_a_delayed_message_is_linked",
        "trace::b10_a_scheduled_message_is_linked",
        "trace::b10_who_wants_a_delayed_message_in_the_trace_says_so",
        "trace::b16_without_a_context_the_ambient_one_is_no_parent",
        "trace::b18_messages_do_not_share_the_receiving_loops_trace",
        "trace::b18_messages_do_not_share_the_trace_of_a_consumer",
        "trace::b19_the_receiver_continues_the_send_span",
        "trace::b20_a_forward_keeps_the_messages_context",
        "trace::b23_a_header_is_found_in_any_case",
        "trace::b24_a_name_that_a_server_changed_is_understood",
        "trace::b27_dialects_are_read_where_they_are_asked_for",
        "trace::b32_a_reader_of_the_past_links",
        "trace::b32_what_is_replayed_is_linked",
        "trace::b34_a_bridge_is_one_trace",
        "trace::b35_a_trust_boundary_takes_nothing_but_the_ids",
        "trace::b38_a_job_is_linked_to_who_asked_for_it"
    ];
    telemetry_keeps_a_hundred_links: KeepsAHundredLinks => [
        "trace::b04_each_message_of_a_batch_has_its_own_context",
        "trace::b06_a_batch_of_more_than_128_drops_no_link"
    ];
    telemetry_forgets_errors: ForgetsErrors => [
        "trace::b07_each_retry_stays_in_the_trace",
        "trace::b07_retries_of_a_consumer_stay_in_the_trace",
        "trace::b09_a_dead_letter_keeps_its_trace",
        "trace::b28_a_batch_that_fails_says_so_on_its_span",
        "trace::b28_an_error_is_on_the_span_at_most_once",
        "trace::b28_errors_and_panics_are_on_the_span",
        "trace::b29_the_span_of_a_cancelled_handler_ends",
        "trace::b29_the_span_of_a_handler_that_is_cut_off_ends",
        "trace::b29_the_span_of_a_handler_that_takes_too_long_ends",
        "trace::b30_a_failed_message_of_a_batch_is_on_its_spans",
        "trace::b30_a_failed_publish_is_on_its_span",
        "trace::b30_the_span_of_a_cancelled_publish_ends",
        "trace::b31_each_attempt_is_one_span_of_the_same_parent"
    ];
    telemetry_loses_cancelled_spans: LosesCancelledSpans => [
        "trace::b29_the_span_of_a_cancelled_handler_ends",
        "trace::b29_the_span_of_a_handler_that_is_cut_off_ends",
        "trace::b30_the_span_of_a_cancelled_publish_ends",
        "trace::b31_each_attempt_is_one_span_of_the_same_parent"
    ];
    telemetry_retries_in_new_traces: RetriesInNewTraces => [
        "trace::b07_each_retry_stays_in_the_trace",
        "trace::b07_retries_of_a_consumer_stay_in_the_trace",
        "trace::b28_errors_and_panics_are_on_the_span",
        "trace::b29_the_span_of_a_cancelled_handler_ends",
        "trace::b31_each_attempt_is_one_span_of_the_same_parent"
    ];
    telemetry_retries_under_one_id: RetriesUnderOneId => ["trace::b31_each_attempt_is_one_span_of_the_same_parent"];
    telemetry_takes_the_ambient_parent: TakesTheAmbientParent => [
        "trace::b06_a_batch_of_more_than_128_drops_no_link",
        "trace::b09_a_dead_letter_is_what_its_consumer_makes_of_it",
        "trace::b10_a_delayed_message_is_linked",
        "trace::b10_a_scheduled_message_is_linked",
        "trace::b16_without_a_context_the_ambient_one_is_no_parent",
        "trace::b18_messages_do_not_share_the_receiving_loops_trace",
        "trace::b18_messages_do_not_share_the_trace_of_a_consumer",
        "trace::b32_a_reader_of_the_past_links",
        "trace::b32_what_is_replayed_is_linked",
        "trace::b35_a_trust_boundary_takes_nothing_but_the_ids"
    ];
    telemetry_publishes_as_roots: PublishesAsRoots => [
        "trace::b01_every_reference_leads_to_an_exported_span",
        "trace::b04_each_message_of_a_batch_has_its_own_context",
        "trace::b08_a_publish_writes_each_header_once",
        "trace::b09_a_dead_letter_keeps_its_trace",
        "trace::b14_a_b3_header_alone_carries_the_trace",
        "trace::b19_the_receiver_continues_the_send_span",
        "trace::b20_a_forward_keeps_the_messages_context",
        "trace::b20_a_publish_takes_the_callers_context",
        "trace::b26_contexts_lie_on_the_wire_as_text_under_lower_case_names",
        "trace::b30_a_failed_publish_is_on_its_span",
        "trace::b33_a_request_and_its_reply_are_one_trace",
        "trace::b33_what_a_handler_publishes_is_a_child_of_its_process_span",
        "trace::b34_a_bridge_is_one_trace",
        "trace::b38_a_job_is_linked_to_who_asked_for_it"
    ];
    telemetry_work_outside: WorkOutside => [
        "trace::b02_a_handler_in_its_own_task_is_inside_its_process_span",
        "trace::b02_the_handlers_work_is_inside_its_process_span"
    ];
    telemetry_keeps_the_context_before: KeepsTheContextBefore => [
        "trace::b09_a_dead_letter_is_what_its_consumer_makes_of_it",
        "trace::b22_a_garbage_header_costs_the_context_and_nothing_else",
        "trace::b25_doubled_headers_are_read_as_documented",
        "trace::b27_dialects_are_read_where_they_are_asked_for",
        "trace::b32_what_is_replayed_is_linked"
    ];
    telemetry_links_as_parents: LinksAsParents => [
        "trace::b09_a_dead_letter_is_what_its_consumer_makes_of_it",
        "trace::b10_a_delayed_message_is_linked",
        "trace::b10_a_scheduled_message_is_linked",
        "trace::b32_a_reader_of_the_past_links",
        "trace::b32_what_is_replayed_is_linked",
        "trace::b35_a_trust_boundary_takes_nothing_but_the_ids"
    ];
    telemetry_forgets_dialects: ForgetsDialects => [
        "trace::b24_a_name_that_a_server_changed_is_understood",
        "trace::b27_dialects_are_read_where_they_are_asked_for"
    ];
    telemetry_batches_as_children: BatchesAsChildren => [
        "trace::b05_a_batch_is_one_span_that_links_every_message",
        "trace::b06_a_batch_of_more_than_128_drops_no_link"
    ];
    telemetry_transfers_as_producers: TransfersAsProducers => [
        "trace::b04_each_message_of_a_batch_has_its_own_context",
        "trace::b09_a_dead_letter_keeps_its_trace",
        "trace::b20_a_forward_keeps_the_messages_context",
        "trace::b34_a_bridge_is_one_trace"
    ];
    telemetry_forgets_the_queue: ForgetsTheQueue => [
        "trace::b40_the_time_in_the_queue_is_never_negative",
        "trace::b40_the_time_in_the_queue_is_on_every_delivery"
    ];
    telemetry_counts_the_queue_short: CountsTheQueueShort => [
        "trace::b40_the_time_in_the_queue_is_never_negative",
        "trace::b40_the_time_in_the_queue_is_on_every_delivery"
    ];
}

//! The kit against faulty drivers, propagators and telemetry: each fault fails exactly the cases
//! that are named for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[path = "conformance_faults/below/mod.rs"]
mod below;
#[path = "conformance_faults/driver.rs"]
mod driver;
#[path = "conformance_faults/fault.rs"]
mod fault;
#[path = "conformance_faults/harness.rs"]
mod harness;
#[path = "conformance_faults/headers.rs"]
mod headers;
#[path = "conformance_faults/propagators.rs"]
mod propagators;
#[path = "conformance_faults/spans.rs"]
mod spans;
#[path = "conformance_faults/trace_harness.rs"]
mod trace_harness;
#[path = "conformance_faults/traces.rs"]
mod traces;

use fault::Fault;
use traced_broker::conformance;

/// Creates a test for each fault, with the cases that it fails.
macro_rules! faults {
    ($($name:ident: $fault:ident => [$($case:literal),*];)*) => {
        $(
            #[test]
            fn $name() {
                harness::check(Fault::$fault, &[$($case),*]);
            }
        )*

        #[test]
        fn every_fault_is_tried() {
            let tried = [$(Fault::$fault),*];
            assert_eq!(tried.len(), Fault::COUNT, "each fault has one test");
            let distinct: std::collections::BTreeSet<String> = tried.iter().map(|fault| format!("{fault:?}")).collect();
            assert_eq!(distinct.len(), tried.len());
        }
    };
}

faults! {
    passes_without_a_fault: None => [];
    loses_one_in_five_thousand: LosesOneInFiveThousand => ["stress::loses_none_of_ten_thousand"];
    loses_what_it_buffered_when_closed: ConfirmsBeforeStoring => ["lifecycle::closes_while_many_publish"];
    stores_large_messages_twice: StoresLargeMessagesTwice => [
        "delivery::confirms_and_delivers_exactly_what_was_sent",
        "runtime::buries_a_message_as_large_as_the_broker_takes"
    ];
    cuts_large_payloads: CutsLargePayloads => [
        "delivery::carries_payloads_of_any_size",
        "runtime::buries_a_message_as_large_as_the_broker_takes"
    ];
    makes_tombstones_empty: MakesTombstonesEmpty => ["delivery::carries_a_tombstone"];
    reorders_under_load: ReordersUnderLoad => ["order::keeps_the_callers_order_with_many_in_flight"];
    reorders_within_a_key: ReordersWithinAKey => ["order::keeps_the_order_of_each_key"];
    swaps_headers_between_messages: SwapsHeaders => [
        "delivery::keeps_headers_of_messages_apart",
        "propagation::reads_every_form_of_baggage",
        "propagation::reads_every_form_of_traceparent",
        "propagation::reads_every_form_of_tracestate",
        "runtime::answers_each_request_with_its_reply",
        "stress::b17_none_of_a_hundred_thousand_sees_anothers_context",
        "trace::b17_concurrent_deliveries_never_mix_contexts"
    ];
    renames_headers: RenamesHeaders => ["hostile::carries_odd_headers_or_refuses_them"];
    lower_cases_names: LowerCasesNames => [
        "delivery::keeps_headers_of_messages_apart",
        "hostile::carries_odd_headers_or_refuses_them",
        "propagation::works_with_b3_in_several_headers",
        "trace::b21_handlers_see_the_headers_of_the_wire"
    ];
    lower_cases_values: LowerCasesValues => [
        "hostile::carries_odd_headers_or_refuses_them",
        "hostile::delivers_messages_with_hostile_context",
        "propagation::reads_every_form_of_baggage",
        "propagation::reads_every_form_of_traceparent",
        "propagation::reads_every_form_of_tracestate",
        "propagation::survives_hostile_headers_of_a_context",
        "telemetry::counts_what_was_not_used_of_headers",
        "trace::b21_handlers_see_the_headers_of_the_wire",
        "trace::b22_a_garbage_header_costs_the_context_and_nothing_else",
        "trace::b26_contexts_lie_on_the_wire_as_text_under_lower_case_names"
    ];
    drops_empty_headers: DropsEmptyHeaders => [
        "hostile::carries_odd_headers_or_refuses_them",
        "propagation::reads_every_form_of_traceparent"
    ];
    keeps_a_hundred_headers: KeepsAHundredHeaders => ["hostile::carries_many_headers"];
    keeps_one_header_of_a_name: KeepsOneHeaderOfAName => [
        "delays::delivers_delayed_messages_as_they_were",
        "delivery::confirms_and_delivers_exactly_what_was_sent",
        "hostile::carries_odd_headers_or_refuses_them",
        "hostile::delivers_messages_with_hostile_context",
        "propagation::reads_every_form_of_baggage",
        "propagation::reads_every_form_of_traceparent",
        "propagation::reads_every_form_of_tracestate",
        "propagation::survives_hostile_headers_of_a_context",
        "propagation::works_with_b3_in_several_headers",
        "telemetry::counts_what_was_not_used_of_headers",
        "trace::b25_doubled_headers_are_read_as_documented"
    ];
    cuts_long_headers: CutsLongHeaders => [
        "hostile::carries_odd_headers_or_refuses_them",
        "propagation::reads_every_form_of_baggage",
        "propagation::reads_every_form_of_tracestate",
        "propagation::survives_hostile_headers_of_a_context"
    ];
    misspells_an_attribute: MisspellsAnAttribute => ["trace::b19_the_receiver_continues_the_send_span"];
    panics_at_a_nul: PanicsAtANul => ["hostile::carries_odd_headers_or_refuses_them"];
    adds_a_header: AddsAHeader => ["lifecycle::drives_and_closes_below_the_telemetry"];
    mixes_topics_that_begin_alike: MixesTopicsThatBeginAlike => ["delivery::keeps_topics_apart"];
    copies_to_members_of_other_connections: CopiesToOtherConnections => [
        "delivery::shares_within_a_group_and_copies_to_each_group",
        "runtime::good_keys_pass_a_slow_key",
        "runtime::handles_nothing_twice_when_members_come_and_go"
    ];
    begins_readers_at_the_earliest: BeginsReadersAtTheEarliest => [
        "delivery::starts_an_ephemeral_reader_at_the_latest",
        "stress::serves_fifty_subscribers_at_once"
    ];
    serves_no_more_than_forty: ServesNoMoreThanForty => ["stress::serves_fifty_subscribers_at_once"];
    ignores_the_offset_to_begin_at: IgnoresTheOffset => ["positions::begins_a_group_at_an_offset"];
    ignores_the_time_to_begin_at: IgnoresTheTime => ["positions::begins_a_reader_at_a_time"];
    moves_every_group: MovesEveryGroup => ["positions::moves_one_group_and_no_other"];
    delivers_before_the_delay: DeliversBeforeTheDelay => [
        "delays::delivers_at_different_times",
        "delays::delivers_no_earlier_than_asked"
    ];
    counts_attempts_wrong: CountsAttemptsWrong => [
        "settlement::counts_attempts_until_acknowledged",
        "trace::b28_errors_and_panics_are_on_the_span"
    ];
    hands_out_one_too_many: HandsOutOneTooMany => [
        "driver::frees_the_place_of_what_is_set_aside",
        "settlement::bounds_what_is_unsettled"
    ];
    retries_too_early: RetriesTooEarly => ["runtime::waits_between_attempts", "settlement::delays_a_retry"];
    brings_back_what_was_discarded: BringsBackWhatWasDiscarded => [
        "settlement::discards_without_a_dead_letter_topic",
        "trace::b28_errors_and_panics_are_on_the_span"
    ];
    commits_past_the_gap: CommitsPastTheGap => [
        "lifecycle::hands_the_work_of_a_closed_member_to_the_others",
        "settlement::never_commits_past_the_oldest_unsettled",
        "stress::b17_none_of_a_hundred_thousand_sees_anothers_context"
    ];
    acknowledges_what_is_out_when_closed: AcknowledgesWhatIsOutWhenClosed => [
        "driver::brings_back_the_oldest_first",
        "driver::counts_hand_outs",
        "driver::ends_tenures_when_closed",
        "driver::redelivers_what_a_dropped_handle_left",
        "lifecycle::hands_the_work_of_a_closed_member_to_the_others",
        "settlement::brings_acknowledgements_to_the_broker_before_closing",
        "settlement::fails_to_settle_after_close",
        "settlement::never_commits_past_the_oldest_unsettled",
        "trace::b31_each_attempt_is_one_span_of_the_same_parent"
    ];
    forgets_what_a_dropped_subscription_had: ForgetsWhatADroppedSubscriptionHad => ["settlement::gives_back_what_a_dropped_subscription_had"];
    settles_only_when_awaited: SettlesOnlyWhenAwaited => ["lifecycle::flushes_what_nobody_waits_for"];
    settles_after_close: SettlesAfterClose => ["driver::ends_tenures_when_closed", "driver::ends_tenures_when_the_group_is_moved"];
    publishes_after_close: PublishesAfterClose => ["lifecycle::drives_and_closes_below_the_telemetry"];
    answers_pings_after_close: AnswersPingsAfterClose => ["lifecycle::closes_once_and_for_all"];
    fails_a_second_close: FailsASecondClose => [
        "lifecycle::closes_from_many_tasks_at_once",
        "lifecycle::closes_once_and_for_all",
        "lifecycle::drives_and_closes_below_the_telemetry"
    ];
    shows_the_secret_in_debug: ShowsTheSecretInDebug => ["hostile::keeps_secrets_out_of_every_text"];
    shows_the_secret_in_errors: ShowsTheSecretInErrors => ["hostile::keeps_secrets_out_of_every_text"];
}

/// A break would never be noticed if the kit must prevent it but has no case for it.
#[test]
fn every_break_has_a_case() {
    let names: Vec<&str> = conformance::cases().iter().map(conformance::Case::name).collect();
    let mut numbers = Vec::new();
    for one in conformance::breaks() {
        numbers.push(one.number());
        let checked = names.iter().any(|name| one.is_checked_by(name));
        assert_eq!(checked, one.responsible() == conformance::Responsible::Kit, "{one}: {}", one.words());
    }
    assert_eq!(numbers, (1..=42).collect::<Vec<u8>>());
    let numbered =
        |name: &str| name.strip_prefix('b').is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()));
    for name in names.into_iter().filter(|name| numbered(name)) {
        assert!(conformance::breaks().iter().any(|one| one.is_checked_by(name)), "{name} is named for a break");
    }
}

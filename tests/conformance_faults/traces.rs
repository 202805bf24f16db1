//! What is wrong with how contexts travel, or with the spans, and which cases notice.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::harness::check_on;
use crate::headers::HeaderFault;
use crate::propagators::PropagatorFault;
use crate::spans::SpanFault;
use crate::trace_harness::{TraceFault, TraceHarness};

/// A test for each fault of a kind, with the cases that it fails.
macro_rules! faults {
    ($kind:ident $faults:ident $every:ident: $($name:ident: $fault:ident => [$($case:literal),*];)*) => {
        $(
            #[test]
            fn $name() {
                let fault = TraceFault::$kind($faults::$fault);
                check_on(Arc::new(TraceHarness::new(fault)), &[$($case),*], stringify!($fault));
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
    driver_drops_one_context_in_a_hundred: DropsOneContextInAHundred => [];
    driver_garbles_one_span_id_in_a_hundred: GarblesOneSpanIdInAHundred => [];
    driver_doubles_contexts: DoublesContexts => [];
    driver_doubles_contexts_of_dead_letters: DoublesContextsOfDeadLetters => [];
    driver_upper_cases_names: UpperCasesNames => [];
    driver_renames_contexts: RenamesContexts => [];
    driver_reverses_trace_states: ReversesTraceStates => [];
    driver_strips_trace_states: StripsTraceStates => [];
    driver_strips_baggage: StripsBaggage => [];
    driver_forces_the_sampled_flag: ForcesTheSampledFlag => [];
    driver_keeps_one_context_for_a_key: KeepsOneContextForAKey => [];
    driver_mixes_contexts_under_load: MixesContextsUnderLoad => [];
    driver_loses_contexts_on_redelivery: LosesContextsOnRedelivery => [];
    driver_loses_contexts_of_dead_letters: LosesContextsOfDeadLetters => [];
    driver_loses_contexts_of_delayed_messages: LosesContextsOfDelayedMessages => [];
    driver_makes_contexts_up: MakesContextsUp => [];
    driver_cleans_contexts: CleansContexts => [];
    driver_loses_messages_with_garbage: LosesMessagesWithGarbage => [];
    driver_refuses_doubled_contexts: RefusesDoubledContexts => [];
    driver_forgets_the_time: ForgetsTheTime => [];
}

faults! { Propagator PropagatorFault every_fault_of_propagators_is_tried:
    propagator_passes_without_a_fault: None => [];
    propagator_ignores_the_flags: IgnoresTheFlags => [];
    propagator_drops_unsampled_contexts: DropsUnsampledContexts => [];
    propagator_extracts_the_ambient_context: ExtractsTheAmbientContext => [];
    propagator_drops_baggage: DropsBaggage => [];
    propagator_drops_trace_states: DropsTraceStates => [];
    propagator_injects_twice: InjectsTwice => [];
    propagator_injects_the_origin: InjectsTheOrigin => [];
    propagator_leaks_baggage: LeaksBaggage => [];
}

faults! { Span SpanFault every_fault_of_spans_is_tried:
    telemetry_passes_without_a_fault: None => [];
    telemetry_loses_create_spans: LosesCreateSpans => [];
    telemetry_takes_the_origin_for_the_parent: TakesTheOriginForTheParent => [];
    telemetry_processes_end_at_once: ProcessesEndAtOnce => [];
    telemetry_processes_start_late: ProcessesStartLate => [];
    telemetry_sends_end_at_once: SendsEndAtOnce => [];
    telemetry_drops_links: DropsLinks => [];
    telemetry_keeps_a_hundred_links: KeepsAHundredLinks => [];
    telemetry_forgets_errors: ForgetsErrors => [];
    telemetry_loses_cancelled_spans: LosesCancelledSpans => [];
    telemetry_retries_in_new_traces: RetriesInNewTraces => [];
    telemetry_retries_under_one_id: RetriesUnderOneId => [];
    telemetry_takes_the_ambient_parent: TakesTheAmbientParent => [];
    telemetry_publishes_as_roots: PublishesAsRoots => [];
    telemetry_keeps_the_context_before: KeepsTheContextBefore => [];
    telemetry_batches_as_children: BatchesAsChildren => [];
    telemetry_forgets_kinds: ForgetsKinds => [];
    telemetry_forgets_the_queue: ForgetsTheQueue => [];
    telemetry_counts_the_queue_short: CountsTheQueueShort => [];
}

//! The kit against a driver with one fault below the layers that hide it.
//!
//! The driver is right and whole without a fault: it fetches ahead, its broker can be killed, and
//! it comes back. Each fault is a mistake that an adapter's author may make, and that a program on
//! top of the layers seldom meets.

mod broker;
mod connection;
mod fetching;
mod handle;

use broker::{Mortal, MortalHarness};
use connection::Connection;

/// The fault of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DriverFault {
    None,
    /// A handle from before a kill settles the delivery that its message has now.
    StaleHandlesSettle,
    /// Attempts begin at 1 again after a kill.
    ForgetsAttempts,
    /// A fetched message is given back as a retry.
    CountsWhatItFetched,
    /// A handle that is dropped acknowledges its message.
    AcknowledgesWhatIsDropped,
    /// A message that was fetched before a move of the group is handed out after it.
    YieldsWhatItFetchedBeforeAMove,
    /// A reader begins at the latest message after a kill.
    ReadersBeginAnew,
    /// A settlement that was lost in a kill is answered with Ok.
    LostSettlementsAreOk,
    /// A message that waits for a retry at a kill is due at once.
    ForgetsDelays,
    /// A publish waits until the broker is back.
    WaitsForTheBroker,
    /// A reader's retry acknowledges the message.
    IgnoresRetriesOfReaders,
    /// Redelivered messages come newest first.
    RedeliversTheNewestFirst,
    /// A member gets nothing while another one is full.
    WaitsForAFullMember,
    /// Receipts count offsets from 1.
    CountsOffsetsFromOne,
    /// Giving back counts an attempt.
    CountsWhatIsGivenBack,
    /// A stopped source keeps what it fetched.
    KeepsWhatItFetchedWhenStopped,
    /// Every delivery is said to be the first one.
    CountsOneDelivery,
    /// A delivery that is set aside keeps its place.
    SetsAsideInWordsOnly,
    /// No tenure ends.
    TenuresNeverEnd,
}

/// Creates a test for each fault, with the cases that it fails.
macro_rules! faults {
    ($($name:ident: $fault:ident => [$($case:literal),*];)*) => {
        $(
            #[test]
            fn $name() {
                let harness = std::sync::Arc::new(MortalHarness::new(DriverFault::$fault));
                crate::harness::check_all(harness, &[$($case),*], stringify!($fault));
            }
        )*

        #[test]
        fn every_fault_of_a_driver_is_tried() {
            let tried = [$(DriverFault::$fault),*];
            assert_eq!(tried.len(), DriverFault::TenuresNeverEnd as usize + 1, "each fault has one test");
        }
    };
}

faults! {
    a_driver_without_a_fault_passes: None => [];
    stale_handles_settle: StaleHandlesSettle => ["driver::settles_nothing_with_a_handle_of_an_earlier_delivery"];
    forgets_attempts: ForgetsAttempts => ["driver::keeps_attempts_over_a_kill"];
    counts_what_it_fetched: CountsWhatItFetched => ["driver::counts_no_attempt_for_what_was_fetched_ahead"];
    acknowledges_what_is_dropped: AcknowledgesWhatIsDropped => ["driver::redelivers_what_a_dropped_handle_left"];
    yields_what_it_fetched_before_a_move: YieldsWhatItFetchedBeforeAMove => [
        "driver::forgets_what_it_fetched_when_the_group_is_moved"
    ];
    readers_begin_anew: ReadersBeginAnew => ["driver::continues_a_reader_after_a_kill"];
    lost_settlements_are_ok: LostSettlementsAreOk => ["driver::says_that_a_settlement_was_lost"];
    forgets_delays: ForgetsDelays => [
        "driver::keeps_the_delay_of_a_retry_over_a_kill",
        "runtime::good_messages_pass_many_that_fail"
    ];
    waits_for_the_broker: WaitsForTheBroker => ["driver::answers_while_the_broker_is_away"];
    ignores_retries_of_readers: IgnoresRetriesOfReaders => ["driver::retries_for_a_reader"];
    redelivers_the_newest_first: RedeliversTheNewestFirst => ["driver::brings_back_the_oldest_first"];
    waits_for_a_full_member: WaitsForAFullMember => ["driver::hands_to_others_what_a_full_member_cannot_take"];
    counts_offsets_from_one: CountsOffsetsFromOne => ["driver::reports_where_it_stored_the_message"];
    counts_what_is_given_back: CountsWhatIsGivenBack => ["driver::gives_back_in_place_and_uncounted"];
    keeps_what_it_fetched_when_stopped: KeepsWhatItFetchedWhenStopped => [
        "driver::gives_back_what_it_fetched_when_stopped"
    ];
    counts_one_delivery: CountsOneDelivery => ["driver::counts_hand_outs"];
    sets_aside_in_words_only: SetsAsideInWordsOnly => [
        "driver::frees_the_place_of_what_is_set_aside",
        "runtime::good_keys_pass_a_key_that_fails",
        "runtime::good_keys_pass_a_slow_key",
        "runtime::good_keys_pass_many_keys_that_fail"
    ];
    tenures_never_end: TenuresNeverEnd => [
        "driver::ends_tenures_when_closed",
        "driver::ends_tenures_when_the_group_is_moved",
        "driver::ends_tenures_with_the_connection"
    ];
}

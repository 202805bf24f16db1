//! The guarantee of the two tiers: each trace is in one place, the notable traces are kept, and
//! every kept trace is whole.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::judgement::{Sorted, check_all_kept, check_baseline, check_each_on_one_back_end, check_whole, known_after};
use crate::tier::{ByTrace, Tier};
use crate::traffic::{SERVICES, failing, plain, send, waiting};

/// Additional time after the decision wait: for the next tick of the processor, its batch, and the
/// way to Jaeger.
const AND_THEN: Duration = Duration::from_secs(5);

/// Additional time that a busy machine may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// Checks the traces in Jaeger after the expected time, and repeats the check until it passes or
/// the time is up.
fn judge<T>(tier: &Tier, wait: Duration, check: impl Fn(&ByTrace) -> Result<T, String>) -> T {
    thread::sleep(wait + AND_THEN);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check(&tier.kept(&SERVICES)) {
            Ok(found) => return found,
            Err(why) => assert!(Instant::now() < deadline, "{why}"),
        }
        thread::sleep(Duration::from_secs(1));
    }
}

fn spans_of(traces: &ByTrace) -> usize {
    traces.values().map(Vec::len).sum()
}

#[test]
fn notable_traces_are_kept_and_every_kept_trace_is_whole() {
    const WAIT: Duration = Duration::from_secs(8);
    let tier = Tier::start(&[("DECISION_WAIT", "8s")]);
    let endpoint = tier.endpoint();
    let sent = thread::scope(|scope| {
        // Delays up to the decision wait, during other traffic.
        let waiting = scope.spawn(|| send(&waiting(58), &endpoint));
        let mut sent = ByTrace::new();
        for _ in 0..5 {
            // Few enough at a time that their queue does not make their traces slow.
            let orders: Vec<_> = failing(30).into_iter().chain(plain(570)).collect();
            sent.extend(send(&orders, &endpoint));
        }
        sent.extend(waiting.join().unwrap());
        sent
    });
    let received = tier.received(spans_of(&sent));
    check_each_on_one_back_end(&sent, &received).unwrap();

    let sorted = Sorted::new(&sent, WAIT);
    let baseline = judge(&tier, WAIT, |kept| {
        check_whole(&sent, kept)?;
        check_all_kept(&sorted.notable, kept)?;
        check_baseline(&sorted.ordinary, kept)
    });

    let near = sorted.notable.values().filter(|spans| known_after(spans) > WAIT / 2).count();
    println!(
        "{} notable, {near} of them complete after more than half of the wait; {baseline} of {} ordinary kept",
        sorted.notable.len(),
        sorted.ordinary.len(),
    );
    assert!(sorted.notable.len() >= 150 && sorted.ordinary.len() >= 1000, "enough of each to judge by");
    assert!(near >= 5, "delays that come near the wait");
}

#[test]
fn spans_that_come_after_the_decision_share_the_fate_of_their_trace() {
    const WAIT: Duration = Duration::from_secs(3);
    // Few traces at a time: when the late spans arrive, their trace has long left the memory.
    let tier = Tier::start(&[("DECISION_WAIT", "3s"), ("NUM_TRACES", "150")]);
    let endpoint = tier.endpoint();
    let mut late = waiting(120);
    for order in &mut late[80..] {
        // The order fails, but too late for the decision.
        order["items"][0]["sku"] = "SAMOVAR-TULA-5L".into();
    }
    let sent = thread::scope(|scope| {
        let late = scope.spawn(|| send(&late, &endpoint));
        let mut sent = ByTrace::new();
        for _ in 0..9 {
            thread::sleep(Duration::from_secs(1));
            sent.extend(send(&plain(30), &endpoint));
        }
        sent.extend(late.join().unwrap());
        sent
    });
    tier.received(spans_of(&sent));

    let sorted = Sorted::new(&sent, WAIT);
    let baseline = judge(&tier, WAIT, |kept| {
        check_whole(&sent, kept)?;
        check_baseline(&sorted.late, kept)
    });
    println!("{baseline} of {} traces are kept that were slow or failed after the decision", sorted.late.len());
    assert!(sorted.late.len() >= 30, "late ones: {}", sorted.late.len());
}

#[test]
fn taking_turns_tears_traces_apart() {
    let changes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backend/turns.yaml");
    let tier = Tier::start_routing(&[], Some(&changes));
    let sent = send(&plain(50), &tier.endpoint());
    let received = tier.received(spans_of(&sent));
    let torn = check_each_on_one_back_end(&sent, &received).unwrap_err();
    assert!(torn.contains("is on the back ends [0, 1]"), "{torn}");
}

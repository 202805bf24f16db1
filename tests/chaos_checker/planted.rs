//! Histories with one break each: the checker names that invariant, the message, and no other.

use std::time::Duration;

use crate::checker::{Invariant, check, figures, outstanding, recoveries};
use crate::history::{Delivered, Event, Outcome, Verdict};
use crate::recipe::{Flaw, Id};
use crate::run::{MEMBER, Run, rules};

#[test]
fn a_clean_history_breaks_nothing() {
    let mut run = Run::clean();
    run.publish(8);
    run.deliver("ordered", 8, Verdict::Retry);
    run.deliver("ordered", 8, Verdict::Ack);
    run.deliver("plain", 8, Verdict::Reject);
    run.deliver("dead", 8, Verdict::Ack);
    run.attempt(9);
    run.note(Event::NotSent { id: Id(0, 9), why: "unavailable".to_owned() });
    run.note(Event::Spans { member: MEMBER.to_owned(), started: 20, ended: 20 });
    run.note(Event::Pending { group: "plain".to_owned(), count: 0 });
    run.note(Event::Closed { member: MEMBER.to_owned(), error: None });
    assert_eq!(run.findings(), []);
    assert_eq!(outstanding(&run.records, &rules()), 0);
    let figures = figures(&run.records, &rules());
    assert_eq!((figures.attempted, figures.confirmed, figures.not_sent, figures.duplicates), (10, 9, 1, 0));
}

#[test]
fn a_lost_message() {
    let mut run = Run::clean();
    run.forget("plain", 3);
    run.breaks(Invariant::I1, 3);
    assert_eq!(outstanding(&run.records, &rules()), 1);
    assert_eq!(figures(&run.records, &rules()).lost, 1);
}

#[test]
fn a_lost_dead_letter() {
    let mut run = Run::clean();
    run.publish(8);
    run.deliver("ordered", 8, Verdict::Ack);
    run.deliver("plain", 8, Verdict::Reject);
    run.breaks(Invariant::I1, 8);
}

#[test]
fn a_message_that_was_never_published() {
    let mut run = Run::clean();
    run.deliver("plain", 77, Verdict::Ack);
    run.breaks(Invariant::I2, 77);
}

#[test]
fn changed_bytes() {
    for flaw in [Flaw::Payload, Flaw::Key, Flaw::Header] {
        let mut run = Run::clean();
        run.forget("plain", 5);
        let delivery = run.hand_out("plain", 5, vec![flaw]);
        run.settle(&delivery, Verdict::Ack, Outcome::Settled);
        run.breaks(Invariant::I2, 5);
    }
}

#[test]
fn a_payload_of_another_run() {
    let mut run = Run::clean();
    let stranger = Delivered {
        group: "plain".to_owned(),
        member: MEMBER.to_owned(),
        delivery: "by hand".to_owned(),
        id: None,
        attempt: 1,
        deliveries: None,
        place: String::new(),
        flaws: Vec::new(),
    };
    run.note(Event::Delivered(stranger));
    run.breaks(Invariant::I2, None);
}

#[test]
fn a_message_that_was_not_sent_and_appears() {
    let mut run = Run::clean();
    run.attempt(8);
    run.note(Event::NotSent { id: Id(0, 8), why: "unavailable".to_owned() });
    run.deliver("plain", 8, Verdict::Ack);
    run.breaks(Invariant::I3, 8);
    assert_eq!(figures(&run.records, &rules()).not_sent_seen, 1);
}

#[test]
fn an_unsettled_message_that_does_not_come_again() {
    for verdict in [None, Some(Verdict::Drop), Some(Verdict::Retry)] {
        let mut run = Run::clean();
        run.forget("plain", 2);
        let delivery = run.hand_out("plain", 2, Vec::new());
        if let Some(verdict) = verdict {
            run.settle(&delivery, verdict, Outcome::Settled);
        }
        run.breaks(Invariant::I4, 2);
    }
}

/// The acknowledgement of one message settles another one: that one never comes again.
#[test]
fn a_settlement_that_settles_another_message() {
    let mut run = Run::clean();
    run.forget("plain", 2);
    let before = run.hand_out("plain", 2, Vec::new());
    run.note(Event::Fault { name: "cut".to_owned() });
    run.note(Event::Asked { delivery: before, verdict: Verdict::Drop });
    run.deliver("plain", 3, Verdict::Ack);
    let findings = run.findings();
    let named: Vec<_> = findings.iter().map(|finding| (finding.invariant, finding.id.unwrap().1)).collect();
    // The one that was settled for it, and the acknowledged one that came twice.
    assert_eq!(named, [(Invariant::I4, 2), (Invariant::I5, 3)]);
}

/// A settlement without an answer may have happened or not.
#[test]
fn a_settlement_of_unknown_outcome_claims_nothing() {
    for comes_again in [false, true] {
        let mut run = Run::clean();
        run.forget("plain", 2);
        let delivery = run.hand_out("plain", 2, Vec::new());
        run.settle(&delivery, Verdict::Ack, Outcome::Lost);
        run.note(Event::Fault { name: "kill".to_owned() });
        if comes_again {
            run.deliver("plain", 2, Verdict::Ack);
        }
        assert_eq!(run.findings(), []);
    }
}

#[test]
fn a_settled_message_that_comes_again() {
    let mut run = Run::clean();
    run.note(Event::Fault { name: "kill".to_owned() });
    run.deliver("plain", 2, Verdict::Ack);
    run.breaks(Invariant::I5, 2);
    let lenient = crate::checker::Rules { settles_for_good: false, ..rules() };
    assert_eq!(check(&run.records, &lenient), [], "where the broker confirms no settlements");
}

/// Two groups may reject one message. Then it has two dead letters, and not three.
#[test]
fn each_rejection_has_its_own_dead_letter() {
    let mut run = Run::clean();
    run.publish(8);
    run.deliver("ordered", 8, Verdict::Reject);
    run.deliver("dead", 8, Verdict::Ack);
    run.deliver("plain", 8, Verdict::Reject);
    run.deliver("dead", 8, Verdict::Ack);
    assert_eq!(run.findings(), []);
    run.note(Event::Fault { name: "kill".to_owned() });
    run.deliver("dead", 8, Verdict::Ack);
    run.breaks(Invariant::I5, 8);
}

#[test]
fn a_doubled_message() {
    let mut run = Run::clean();
    run.deliver("plain", 4, Verdict::Ack);
    let lenient = crate::checker::Rules { settles_for_good: false, ..rules() };
    let findings = check(&run.records, &lenient);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((findings[0].invariant, findings[0].id), (Invariant::I12, Some(Id(0, 4))));
    assert_eq!(figures(&run.records, &lenient).duplicates, 1);
}

#[test]
fn messages_of_a_key_that_change_places() {
    let mut run = Run::clean();
    run.forget("ordered", 2);
    run.deliver("ordered", 2, Verdict::Ack);
    run.breaks(Invariant::I6, 2);
}

/// A broker that promises no order of what it had handed out before excuses the message that says
/// so. One that was never delivered has no excuse, and neither has the message that came before it.
#[test]
fn a_message_that_was_delivered_before_may_be_late_where_that_is_said() {
    let lenient = crate::checker::Rules { redelivered_may_be_late: true, ..rules() };
    let late = |deliveries| {
        let mut run = Run::clean();
        run.forget("ordered", 2);
        let delivery = run.hand_out_again("ordered", 2, deliveries, Vec::new());
        run.settle(&delivery, Verdict::Ack, Outcome::Settled);
        run
    };
    assert_eq!(check(&late(2).records, &lenient), []);
    late(2).breaks(Invariant::I6, 2);
    let named = |run: &Run| {
        let findings = check(&run.records, &lenient);
        findings.iter().map(|finding| (finding.invariant, finding.id.unwrap().1)).collect::<Vec<_>>()
    };
    assert_eq!(named(&late(1)), [(Invariant::I6, 2)]);
    // The excused message does not move the place behind which others are late.
    let mut run = late(2);
    run.publish(8);
    run.publish(10);
    run.deliver("ordered", 10, Verdict::Ack);
    run.deliver("ordered", 8, Verdict::Ack);
    (8..=10).step_by(2).for_each(|number| run.deliver("plain", number, Verdict::Ack));
    assert_eq!(named(&run), [(Invariant::I6, 8)]);
}

/// Order is promised for a key, to the group that asks for it, and for confirmed messages.
#[test]
fn other_messages_may_change_places() {
    let mut run = Run::clean();
    run.forget("plain", 2);
    run.deliver("plain", 2, Verdict::Ack);
    run.attempt(8);
    run.publish(10);
    for group in ["ordered", "plain"] {
        run.deliver(group, 10, Verdict::Ack);
        run.deliver(group, 8, Verdict::Ack);
    }
    run.note(Event::Unknown { id: Id(0, 8), why: "timeout".to_owned() });
    assert_eq!(run.findings(), []);
}

#[test]
fn a_crossed_context() {
    let mut run = Run::clean();
    run.forget("plain", 5);
    let delivery = run.hand_out("plain", 5, vec![Flaw::Context("of 0-4".to_owned())]);
    run.settle(&delivery, Verdict::Ack, Outcome::Settled);
    run.breaks(Invariant::I7, 5);
    assert_eq!(figures(&run.records, &rules()).crossed, 1);
}

/// The context is right when the handler begins, and another one after its first `await`.
#[test]
fn a_context_that_is_crossed_later() {
    let mut run = Run::clean();
    run.forget("plain", 5);
    let delivery = run.hand_out("plain", 5, Vec::new());
    let flaws = vec![Flaw::Context("of 0-4".to_owned())];
    run.note(Event::Handled { delivery: delivery.clone(), flaws });
    run.settle(&delivery, Verdict::Ack, Outcome::Settled);
    run.breaks(Invariant::I7, 5);
}

#[test]
fn spans_that_do_not_end() {
    let mut run = Run::clean();
    run.note(Event::Spans { member: MEMBER.to_owned(), started: 17, ended: 16 });
    run.breaks(Invariant::I8, None);
}

#[test]
fn an_attempt_without_a_span_of_its_own() {
    let mut run = Run::clean();
    run.note(Event::Spans { member: MEMBER.to_owned(), started: 16, ended: 16 });
    let last = run.records.iter().rposition(|record| matches!(record.event, Event::SpanEnded { .. })).unwrap();
    run.records.remove(last);
    run.breaks(Invariant::I8, 7);
}

/// Publishes a message after a fault and delivers it this much later.
fn recovered_after(time: Duration) -> Run {
    let mut run = Run::clean();
    run.note(Event::Fault { name: "kill".to_owned() });
    run.note(Event::Healed);
    run.publish(8);
    run.wait(time);
    run.deliver("ordered", 8, Verdict::Ack);
    run.deliver("plain", 8, Verdict::Ack);
    run.note(Event::TrafficEnded);
    run
}

#[test]
fn progress_that_comes_late_or_never() {
    let run = recovered_after(Duration::from_secs(2));
    assert_eq!(run.findings(), []);
    let measured = recoveries(&run.records, &rules());
    assert_eq!(measured.len(), 1);
    assert_eq!(measured[0].unwrap().as_secs(), 2);
    recovered_after(Duration::from_secs(12)).breaks(Invariant::I10, None);

    let mut silent = Run::clean();
    silent.note(Event::Fault { name: "kill".to_owned() });
    silent.note(Event::Healed);
    silent.attempt(8);
    silent.wait(Duration::from_secs(12));
    silent.note(Event::NotSent { id: Id(0, 8), why: "unavailable".to_owned() });
    silent.note(Event::TrafficEnded);
    silent.breaks(Invariant::I10, None);
}

/// Publishes messages, and delivers them one by one after a fault, before one that is new.
fn backlog_with_a_silence_of(silence: Duration) -> Run {
    let mut run = Run::clean();
    (8..32).for_each(|number| run.publish(number));
    run.note(Event::Fault { name: "cuts".to_owned() });
    run.note(Event::Healed);
    run.publish(32);
    for number in 8..=32 {
        run.wait(if number == 20 { silence } else { Duration::from_millis(500) });
        run.deliver("ordered", number, Verdict::Ack);
        run.deliver("plain", number, Verdict::Ack);
    }
    run.note(Event::TrafficEnded);
    run
}

#[test]
fn a_backlog_that_is_worked_off_is_progress() {
    let run = backlog_with_a_silence_of(Duration::from_millis(500));
    assert_eq!(run.findings(), []);
    assert!(recoveries(&run.records, &rules())[0].unwrap() < Duration::from_secs(1));
    // A silence in the midst of it is not.
    backlog_with_a_silence_of(Duration::from_secs(6)).breaks(Invariant::I10, None);
}

#[test]
fn a_panic_or_a_hang() {
    let mut run = Run::clean();
    run.note(Event::Stuck { what: "publish did not end within 5 s".to_owned() });
    run.breaks(Invariant::I11, None);
}

#[test]
fn remains_after_closing() {
    let mut run = Run::clean();
    run.note(Event::Pending { group: "plain".to_owned(), count: 3 });
    run.breaks(Invariant::I13, None);
    let mut run = Run::clean();
    run.note(Event::Closed { member: MEMBER.to_owned(), error: Some("timeout".to_owned()) });
    run.breaks(Invariant::I13, None);
}

/// A deletion takes with it what was published before; not what was published long after it.
#[test]
fn a_deletion_excuses_only_what_it_deleted() {
    let lenient = crate::checker::Rules { lost_with_deletion: Some(Duration::from_secs(5)), ..rules() };
    let mut run = Run::clean();
    run.publish(8);
    run.note(Event::Deleted { what: "the topic".to_owned() });
    run.publish(9);
    assert_eq!(check(&run.records, &lenient), []);
    run.wait(Duration::from_secs(6));
    run.publish(10);
    let findings = check(&run.records, &lenient);
    assert!(findings.iter().all(|finding| finding.id == Some(Id(0, 10))), "{findings:?}");
    assert_eq!(findings.len(), 2, "in each group");
}

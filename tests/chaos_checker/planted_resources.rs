//! Histories whose processes leave something behind, grow, or tell a password.

use std::time::Duration;

use crate::checker::{Invariant, Rules, check};
use crate::history::{Event, Resources};
use crate::run::{MEMBER, Run, rules};

fn resources(after: Resources) -> Run {
    let mut run = Run::clean();
    let before = Resources { threads: 8, descriptors: 20 };
    run.note(Event::Resources { member: MEMBER.to_owned(), before, after });
    run
}

#[test]
fn a_thread_or_descriptor_that_is_left() {
    resources(Resources { threads: 9, descriptors: 20 }).breaks(Invariant::I11, None);
    resources(Resources { threads: 8, descriptors: 21 }).breaks(Invariant::I11, None);
    assert_eq!(resources(Resources { threads: 7, descriptors: 20 }).findings(), []);
}

/// Returns a run with a sample of the memory each second, for so many seconds.
fn sampled(seconds: u64, kibibytes: impl Fn(u64) -> u64) -> Run {
    let mut run = Run::clean();
    for second in 0..seconds {
        run.note(Event::Memory { member: MEMBER.to_owned(), kibibytes: kibibytes(second) });
        run.wait(Duration::from_secs(1));
    }
    run
}

#[test]
fn memory_that_grows() {
    sampled(180, |second| 50_000 + second * 20).breaks(Invariant::I9, None);
}

#[test]
fn memory_that_is_filled_once_or_goes_up_and_down() {
    assert_eq!(sampled(180, |second| 50_000 + second.min(59) * 200).findings(), [], "in the first minute");
    assert_eq!(sampled(180, |second| 50_000 + second % 20 * 200).findings(), [], "up and down");
    assert_eq!(sampled(180, |second| 50_000 + second * 15).findings(), [], "less than a MiB per minute");
    assert_eq!(sampled(110, |second| 50_000 + second * 20).findings(), [], "for too short a time");
}

#[test]
fn a_password_in_any_text() {
    let why = "no access for chaos:hush".to_owned();
    for event in [Event::Told { text: why.clone() }, Event::Trouble { group: "plain".to_owned(), why }] {
        let mut run = Run::clean();
        run.note(event);
        run.breaks(Invariant::I14, None);
        assert!(!format!("{:?}", run.findings()).contains("hush"), "a finding does not repeat it");
        assert_eq!(check(&run.records, &Rules { secret: None, ..rules() }), [], "there is no password");
    }
}

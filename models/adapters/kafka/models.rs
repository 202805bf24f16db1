//! Models of the window and of the positions to commit.
//!
//! The thread of a subscription waits for room without a time limit here, so that a wake-up that is
//! missing shows: the real one looks again after some milliseconds. The client and the broker stay
//! outside of the models.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shuttle::future::block_on;

use super::consume::assignment::Assignment;
use super::consume::offsets::{Mark, Offsets};
use super::consume::partition::Partition;
use super::consume::progress::Progress;
use crate::checker::Model;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::thread::{self, JoinHandle};

pub const MODELS: &[Model] = &[
    Model { name: "kafka_window", run: window },
    Model { name: "kafka_idle", run: idle },
    Model { name: "kafka_commit", run: commit },
    Model { name: "kafka_revoke", run: revoke },
    Model { name: "kafka_trial", run: trial },
];

/// The one partition of the models.
const PARTITION: i32 = 0;
/// Never over: the clock stands still.
const LIMIT: Duration = Duration::from_secs(1);

fn assigned(limit: usize) -> (Arc<Assignment>, Arc<Partition>) {
    let assignment = Arc::new(Assignment::new(limit));
    assignment.grant(PARTITION, Offsets::default());
    let partition = assignment.get(PARTITION).unwrap();
    (assignment, partition)
}

/// Hands out the message at `offset` to a thread, which settles it, and gives the handle back. The
/// result is `true` if it was settled.
fn work(partition: &Arc<Partition>, offset: i64, begun: &Arc<Mutex<BTreeSet<i64>>>) -> JoinHandle<bool> {
    let (partition, begun) = (Arc::clone(partition), Arc::clone(begun));
    thread::spawn(move || {
        if !partition.hand_out() {
            return false;
        }
        begun.lock().insert(offset);
        let is_settled = partition.settle(offset, false);
        partition.hand_back();
        is_settled
    })
}

/// Returns `true` if a commit of the mark tells that the message at `offset` is settled.
fn tells(mark: &Mark, offset: i64) -> bool {
    let progress = Progress::decode(mark.metadata.as_bytes(), mark.position).unwrap_or_default();
    offset < mark.position || progress.settled.iter().any(|range| range.contains(&offset))
}

/// The thread of a subscription goes on when half of the window is free.
fn window() {
    const MESSAGES: i64 = 5;
    let (assignment, partition) = assigned(2);
    assignment.window.attend();
    let (mut next, mut workers) = (0, Vec::new());
    while next < MESSAGES {
        if assignment.window.room() == 0 {
            assignment.window.wait(LIMIT);
            continue;
        }
        partition.take(next).unwrap();
        let (partition, offset) = (Arc::clone(&partition), next);
        workers.push(thread::spawn(move || partition.settle(offset, false)));
        next += 1;
    }
    assert!(workers.into_iter().all(|worker| worker.join().unwrap()));
    assert_eq!((assignment.window.room(), assignment.revoke(PARTITION).unwrap().position), (2, MESSAGES));
}

/// A subscription that ends waits until no delivery is in hand.
fn idle() {
    let (assignment, partition) = assigned(4);
    assignment.window.attend();
    let begun = Arc::default();
    let workers = [0, 1].map(|offset| {
        partition.take(offset).unwrap();
        work(&partition, offset, &begun)
    });
    thread::yield_now();
    while !assignment.is_idle() {
        assignment.window.sleep(LIMIT);
    }
    // What is not handed out yet may never be.
    let mark = assignment.revoke(PARTITION).unwrap();
    let settled = workers.map(|worker| worker.join().unwrap());
    assert_eq!(settled, [tells(&mark, 0), tells(&mark, 1)]);
}

/// No commit tells of a message that is not settled, and the last one tells of all that are.
fn commit() {
    let (assignment, partition) = assigned(4);
    let begun: Arc<Mutex<BTreeSet<i64>>> = Arc::default();
    let offsets = [10, 11, 12];
    let mut positions = Vec::new();
    let mut commit = || {
        let moved = assignment.moved();
        let begun = begun.lock();
        for (_, mark) in moved {
            let told: BTreeSet<i64> = offsets.into_iter().filter(|offset| tells(&mark, *offset)).collect();
            assert!(told.is_subset(&begun), "{mark:?} with {begun:?}");
            positions.push(mark.position);
        }
    };
    assert!(offsets.iter().all(|offset| partition.take(*offset).is_some()));
    let workers = offsets.map(|offset| work(&partition, offset, &begun));
    for _ in 0..3 {
        commit();
        thread::yield_now();
    }
    assert!(workers.into_iter().all(|worker| worker.join().unwrap()));
    commit();
    assert!(positions.is_sorted() && positions.last() == Some(&13), "{positions:?}");
    assert_eq!(assignment.window.room(), 4);
}

/// The commit of a partition that is revoked has what was settled before, and nothing else. What
/// is settled later is lost. The next assignment hands out the rest, and each place is freed once.
fn revoke() {
    let (assignment, partition) = assigned(4);
    let begun = Arc::default();
    let offsets = [0, 1, 2];
    let workers = offsets.map(|offset| {
        partition.take(offset).unwrap();
        work(&partition, offset, &begun)
    });
    let aside = {
        let partition = Arc::clone(&partition);
        partition.take(3).unwrap();
        thread::spawn(move || partition.set_aside() && partition.settle(3, true))
    };
    let mark = assignment.revoke(PARTITION).unwrap();
    let settled = workers.map(|worker| worker.join().unwrap());
    for (offset, is_settled) in offsets.into_iter().zip(settled).chain([(3, aside.join().unwrap())]) {
        assert_eq!(is_settled, tells(&mark, offset), "{offset} of {mark:?}");
    }
    assert_eq!((assignment.window.room(), partition.in_hand()), (4, 0));

    let progress = Progress::decode(mark.metadata.as_bytes(), mark.position).unwrap_or_default();
    let mut again = Offsets::resume(mark.position, progress);
    for offset in mark.position..4 {
        assert_eq!(again.take(offset).is_some(), !tells(&mark, offset));
    }
}

/// A trial is confirmed in the end, and only by a commit that tells of it.
fn trial() {
    let assignment = Arc::new(Assignment::new(4));
    assignment.grant_with_trials(PARTITION, Offsets::default(), None);
    let partition = assignment.get(PARTITION).unwrap();
    let (committed, answered) = (Arc::<Mutex<Vec<Mark>>>::default(), Arc::new(AtomicUsize::new(0)));
    let offsets = [0, 1];
    assignment.window.attend();
    for offset in offsets {
        partition.take(offset).unwrap();
        let (assignment, partition) = (Arc::clone(&assignment), Arc::clone(&partition));
        let (committed, answered) = (Arc::clone(&committed), Arc::clone(&answered));
        thread::spawn(move || {
            block_on(partition.begin_trial(offset)).unwrap();
            assert!(committed.lock().iter().any(|mark| notes_trial(mark, offset)), "no commit tells of {offset}");
            answered.fetch_add(1, Ordering::SeqCst);
            assignment.window.wake();
        });
    }
    while answered.load(Ordering::SeqCst) < offsets.len() {
        if assignment.notes.is_due() {
            assignment.notes.begin();
            committed.lock().extend(assignment.moved().into_iter().map(|(_, mark)| mark));
            assignment.notes.end(|| Ok(()));
        }
        assignment.window.sleep(LIMIT);
    }
}

/// Returns `true` if a commit of the mark tells of a trial of the message at `offset`.
fn notes_trial(mark: &Mark, offset: i64) -> bool {
    let progress = Progress::decode(mark.metadata.as_bytes(), mark.position).unwrap_or_default();
    progress.trials.contains_key(&offset)
}

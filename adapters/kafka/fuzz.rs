//! The property of the parser of a commit's metadata.
//!
//! It stands here because the parser is private. It is compiled for unit tests, which apply it to
//! the corpus, and for the fuzz target, which no other build contains.

use std::collections::BTreeSet;

use super::consume::offsets::Offsets;
use super::consume::progress::{Open, Progress};

/// The input is a position in eight bytes, the limit of the metadata in two, and the metadata of a
/// commit. Progress that was read is written within the limit and read again, and an assignment can
/// continue with it.
///
/// # Panics
/// Panics if it does not hold.
pub fn progress(input: &[u8]) {
    let Some((position, rest)) = input.split_first_chunk::<8>() else { return };
    let Some((limit, metadata)) = rest.split_first_chunk::<2>() else { return };
    let (position, limit) = (i64::from_be_bytes(*position) & i64::MAX, usize::from(u16::from_be_bytes(*limit)));
    let Some(mut progress) = Progress::decode(metadata, position) else { return };
    let parts = progress.settled.len() + progress.attempts.len() + progress.trials.len();
    assert!(parts <= metadata.len() / 2, "a part has two digits");
    if progress.open.number == 0 {
        // Not written: no assignment is open.
        progress.open = Open::default();
    }
    for limit in [limit, usize::MAX] {
        let (text, left_out) = progress.encode(position, limit);
        assert!(text.len() <= limit);
        let again = Progress::decode(text.as_bytes(), position);
        assert_eq!(again.is_some(), !text.is_empty());
        let is_whole = limit == usize::MAX && !text.is_empty();
        assert!(!is_whole || (left_out == 0 && again.as_ref() == Some(&progress)), "{text}");
    }
    resumed(position, limit, progress);
}

/// Continues an assignment with the progress: takes a few messages, and settles every second one.
fn resumed(position: i64, limit: usize, progress: Progress) {
    let earlier = progress.clone();
    let mut offsets = Offsets::resume(position, progress);
    offsets.note_trials(16, &BTreeSet::from([position]), position.checked_add(20));
    let _ = (offsets.were_left_open(), offsets.are_suspicious());
    for offset in (0..16).filter_map(|more| position.checked_add(more)).take_while(|offset| *offset < i64::MAX) {
        let was_settled = earlier.settled.iter().any(|range| range.contains(&offset));
        let past = offsets.take(offset);
        assert_eq!(past.is_none(), was_settled, "{offset}");
        if past.is_some_and(|past| past.lost_trials.is_some()) {
            offsets.begin_trial(offset);
        }
        if offset % 2 == 0 {
            offsets.settle(offset);
        } else {
            offsets.fail(offset, 3);
        }
        let Some((mark, _)) = offsets.mark(limit) else { panic!("a message was taken") };
        assert!(mark.position > offset || mark.position >= position);
        assert!(mark.metadata.len() <= limit);
        let read = Progress::decode(mark.metadata.as_bytes(), mark.position);
        assert_eq!(read.is_some(), !mark.metadata.is_empty());
    }
    offsets.end();
    assert!(offsets.tried().is_empty());
}

#[cfg(test)]
mod tests {
    use crate::adapters::corpus::{PARSED, replay};

    #[test]
    fn progress() {
        replay("kafka_progress", super::progress, PARSED);
    }
}

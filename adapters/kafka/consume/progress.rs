//! The progress of a group beyond its position in a partition, and its form in the metadata of a
//! commit.

use std::collections::BTreeMap;
use std::ops::Range;
use std::{slice, str};

/// The progress of a group beyond the position that is committed in a partition.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Offsets that are settled, as ascending ranges that do not touch.
    pub(crate) settled: Vec<Range<i64>>,
    /// The attempts of unsettled messages that failed, by their offset.
    pub(crate) attempts: BTreeMap<i64, u32>,
    /// The trials of unsettled messages that are noted and not withdrawn, by their offset.
    pub(crate) trials: BTreeMap<i64, u32>,
    /// The assignments in a row that have not ended in order, with the one that writes this.
    pub(crate) open: Open,
}

/// Assignments in a row that have not ended in order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    /// Their number.
    pub(crate) number: u32,
    /// The offset after the last message that they took.
    pub(crate) reached: i64,
}

/// The beginning of the metadata. Other clients write other texts, which are ignored.
const PREFIX: &str = "traced-broker:2:";

/// The digits of a number, least significant first: five bits each, and one that says that another
/// digit follows.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Progress {
    /// Returns the metadata for a commit of `position`, of at most `limit` bytes, and the number of
    /// settled offsets that did not fit. It is empty if there is no progress.
    ///
    /// The text holds the position, then the number of open assignments and how far they reached,
    /// then offset and attempts of each failed message, then offset and trials of each suspect,
    /// then distance and length of each range.
    pub(crate) fn encode(&self, position: i64, limit: usize) -> (String, u64) {
        let mut text = PREFIX.to_owned();
        put(&mut text, position.unsigned_abs());
        text.push('.');
        let empty = text.len() + 3;
        if self.open.number > 0 {
            put(&mut text, self.open.number.into());
            put(&mut text, self.open.reached.abs_diff(position));
        }
        // The settled ranges have at least half of the room.
        for (counts, limit) in [(&self.attempts, limit / 4), (&self.trials, limit / 2)] {
            text.push('.');
            put_counts(&mut text, position, counts, limit);
        }
        text.push('.');
        let (mut before, mut left_out) = (position, 0);
        for range in &self.settled {
            let length = range.end.abs_diff(range.start);
            if left_out > 0 || !put_pair(&mut text, range.start.abs_diff(before), length, limit) {
                left_out += length;
            }
            before = range.end;
        }
        if text.len() == empty || text.len() > limit {
            text.clear();
        }
        (text, left_out)
    }

    /// Reads the metadata of a commit of `position`. Returns `None` for the text of another client,
    /// and for that of another position: a tool that moved the group kept it by mistake.
    pub(crate) fn decode(metadata: &[u8], position: i64) -> Option<Self> {
        let text = str::from_utf8(metadata).ok()?.strip_prefix(PREFIX)?;
        let mut parts = text.split('.');
        let mut numbers = || Some(parts.next()?.as_bytes().iter());
        if get(&mut numbers()?)? != position.unsigned_abs() {
            return None;
        }
        let mut open = numbers()?;
        let open = match open.len() {
            0 => Open::default(),
            _ => Open {
                number: u32::try_from(get(&mut open)?).ok()?,
                reached: position.checked_add_unsigned(get(&mut open)?)?,
            },
        };
        let (attempts, trials) = (get_counts(numbers()?, position)?, get_counts(numbers()?, position)?);
        let mut progress = Self { settled: Vec::new(), attempts, trials, open };
        let (mut before, mut ranges) = (position, numbers()?);
        while ranges.len() > 0 {
            let start = before.checked_add_unsigned(get(&mut ranges)?)?;
            before = start.checked_add_unsigned(get(&mut ranges)?)?;
            progress.settled.push(start..before);
        }
        Some(progress)
    }
}

/// Appends numbers by their offset, as far as they fit.
fn put_counts(text: &mut String, position: i64, counts: &BTreeMap<i64, u32>, limit: usize) {
    let mut before = position;
    for (offset, count) in counts {
        if !put_pair(text, offset.abs_diff(before), (*count).into(), limit) {
            break;
        }
        before = *offset;
    }
}

fn get_counts(mut digits: slice::Iter<'_, u8>, position: i64) -> Option<BTreeMap<i64, u32>> {
    let (mut counts, mut before) = (BTreeMap::new(), position);
    while digits.len() > 0 {
        before = before.checked_add_unsigned(get(&mut digits)?)?;
        counts.insert(before, u32::try_from(get(&mut digits)?).ok()?);
    }
    Some(counts)
}

/// Appends two numbers, unless the text would be longer than `limit`.
fn put_pair(text: &mut String, one: u64, other: u64, limit: usize) -> bool {
    let length = text.len();
    put(text, one);
    put(text, other);
    let fits = text.len() <= limit;
    if !fits {
        text.truncate(length);
    }
    fits
}

fn put(text: &mut String, mut number: u64) {
    loop {
        let more = if number < 32 { 0 } else { 32 };
        text.push(char::from(DIGITS[(number & 31) as usize | more]));
        number >>= 5;
        if more == 0 {
            return;
        }
    }
}

fn get(digits: &mut slice::Iter<'_, u8>) -> Option<u64> {
    let (mut number, mut shift) = (0_u64, 0);
    loop {
        let digit = digits.next()?;
        let value = DIGITS.iter().position(|known| known == digit)? as u64;
        let part = (value & 31).checked_shl(shift)?;
        if part >> shift != value & 31 {
            return None;
        }
        number |= part;
        shift += 5;
        if value < 32 {
            return Some(number);
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one range of offsets is meant")]
mod tests {
    use super::*;

    fn progress(settled: impl IntoIterator<Item = Range<i64>>, attempts: &[(i64, u32)]) -> Progress {
        let (settled, attempts) = (settled.into_iter().collect(), attempts.iter().copied().collect());
        Progress { settled, attempts, ..Progress::default() }
    }

    fn suspicious(open: Open, trials: &[(i64, u32)]) -> Progress {
        Progress { open, trials: trials.iter().copied().collect(), ..progress([9..11], &[(8, 1)]) }
    }

    #[test]
    fn what_was_written_is_read() {
        let far = i64::MAX - 10;
        for (position, progress) in [
            (0, progress([], &[])),
            (0, progress([1..2], &[])),
            (7, progress([8..50_000, 50_001..50_002], &[(7, 3)])),
            (7, progress([], &[(7, 1), (9, 2), (1_000_000, u32::MAX)])),
            (7, suspicious(Open { number: 3, reached: 7 }, &[])),
            (7, suspicious(Open::default(), &[(7, 2), (12, 1)])),
            (0, suspicious(Open { number: u32::MAX, reached: i64::MAX }, &[(i64::MAX - 1, u32::MAX)])),
            (far, progress([far + 1..far + 3], &[(far, 31), (far + 3, 32)])),
        ] {
            let (text, left_out) = progress.encode(position, 4000);
            assert_eq!((text.is_empty(), left_out), (progress == Progress::default(), 0));
            if !text.is_empty() {
                assert_eq!(Progress::decode(text.as_bytes(), position), Some(progress), "{text}");
                assert_eq!(Progress::decode(text.as_bytes(), position + 1), None, "of another position");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        let all = progress((0..5000).map(|n| 10 * n + 1..10 * n + 4), &[(0, 2)]);
        let (text, left_out) = all.encode(0, 1000);
        assert!((990..=1000).contains(&text.len()), "{}", text.len());
        let read = Progress::decode(text.as_bytes(), 0).unwrap();
        assert_eq!(read.settled[..], all.settled[..read.settled.len()]);
        assert_eq!(left_out, 3 * (5000 - read.settled.len() as u64));
        assert_eq!(read.attempts, all.attempts);
        for limit in 0..30 {
            let (text, left_out) = all.encode(0, limit);
            assert!(text.len() <= limit && (!text.is_empty() || left_out == 15_000), "{limit}: {text}");
        }
    }

    #[test]
    fn a_usual_window_fits() {
        // Every second message of a large window is unsettled and has failed.
        let failed: Vec<(i64, u32)> = (0..512).map(|n| (1_000_000 + 2 * n, 5)).collect();
        let (text, left_out) =
            progress((0..511).map(|n| 1_000_001 + 2 * n..1_000_002 + 2 * n), &failed).encode(1_000_000, 4000);
        assert_eq!(left_out, 0, "{}", text.len());
    }

    #[test]
    fn other_texts_are_ignored() {
        let (text, _) = progress([5..9], &[(3, 1)]).encode(3, 4000);
        for end in 0..text.len() {
            let read = Progress::decode(&text.as_bytes()[..end], 3);
            assert!(read.is_none_or(|read| read.settled.is_empty()), "{}", &text[..end]);
        }
        let endless = format!("{PREFIX}D..A{}", "_".repeat(40));
        let beyond = format!("{PREFIX}D..A{}P", "_".repeat(12));
        for other in [b"".as_slice(), b"{}", b"\xff\xfe", b"traced-broker:2:", endless.as_bytes(), beyond.as_bytes()] {
            assert_eq!(Progress::decode(other, 3), None);
        }
    }
}

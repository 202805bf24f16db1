//! The records in a log of trials, and the notes that are left when they were read in order.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::headers::copy::Original;

/// The identity of a message: the same at each of its deliveries, in its copies, and in every
/// process. Messages that are equal in these parts share it, and their notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity(u128);

impl Identity {
    /// Returns the identity of a message. The exchange has no part in it, because copies go
    /// straight to the queue, nor have the headers, because the broker adds some.
    pub(crate) fn of(original: &Original) -> Self {
        let properties = &original.properties;
        let id = properties.message_id().as_ref().map(|id| id.as_str().as_bytes());
        let sent = properties.timestamp().map(u64::to_be_bytes);
        let routing_key = original.routing_key.as_str().as_bytes();
        let parts = [Some(routing_key), id, sent.as_ref().map(<[u8; 8]>::as_slice), Some(&original.payload)];
        let hash = parts.into_iter().fold(OFFSET, |hash, part| match part {
            Some(part) => hashed(hashed(hash, &(part.len() as u64).to_be_bytes()), part),
            None => hashed(hash, &u64::MAX.to_be_bytes()),
        });
        Self(hash)
    }
}

/// The constants of FNV-1a with 128 bits (RFC 9923): unlike those of the standard library, its
/// values are the same in every build.
const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

fn hashed(hash: u128, bytes: &[u8]) -> u128 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// The identity of a note, or of a mark that shows how far the log was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Note {
    process: u64,
    number: u64,
}

impl Note {
    /// Returns a new note of this process.
    pub(crate) fn new() -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Self { process: *PROCESS, number: NUMBERS.fetch_add(1, Ordering::Relaxed) }
    }
}

/// The number of this process. Drivers share it: what this process noted is not lost, because it
/// lives.
static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));

/// An entry of the log. It reads well as text, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    /// A handler begins on the message.
    Begun(Identity, Note),
    /// The note is withdrawn.
    Heard(Identity, Note),
    /// The message is settled: all of its notes are withdrawn.
    Settled(Identity),
    /// Nothing. The reader that wrote it has read everything before.
    Mark(Note),
}

impl Record {
    /// Reads an entry. Returns `None` for what is none, of a later version for example.
    pub(crate) fn read(entry: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(entry).ok()?.split(' ');
        let word = words.next()?;
        let mut identity = || u128::from_str_radix(words.next()?, 16).ok().map(Identity);
        let record = match word {
            "settled" => Self::Settled(identity()?),
            "mark" => Self::Mark(note(words.next()?)?),
            "begun" => Self::Begun(identity()?, note(words.next()?)?),
            "heard" => Self::Heard(identity()?, note(words.next()?)?),
            _ => return None,
        };
        Some(record)
    }
}

fn note(word: &str) -> Option<Note> {
    let (process, number) = word.split_once('-')?;
    Some(Note { process: u64::from_str_radix(process, 16).ok()?, number: u64::from_str_radix(number, 16).ok()? })
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun(identity, note) => write!(f, "begun {identity} {note}"),
            Self::Heard(identity, note) => write!(f, "heard {identity} {note}"),
            Self::Settled(identity) => write!(f, "settled {identity}"),
            Self::Mark(mark) => write!(f, "mark {mark}"),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.process, self.number)
    }
}

/// The notes that are left, by message.
#[derive(Debug, Default)]
pub(crate) struct Notes(HashMap<Identity, HashSet<Note>>);

impl Notes {
    /// Takes the next record of the log.
    pub(crate) fn take(&mut self, record: Record) {
        match record {
            Record::Begun(identity, note) => drop(self.0.entry(identity).or_default().insert(note)),
            Record::Heard(identity, note) => {
                if let Some(notes) = self.0.get_mut(&identity) {
                    notes.remove(&note);
                    if notes.is_empty() {
                        self.0.remove(&identity);
                    }
                }
            }
            Record::Settled(identity) => drop(self.0.remove(&identity)),
            Record::Mark(_) => {}
        }
    }

    /// Returns the number of other processes that left notes. A process ends once, however many
    /// equal messages it had in hand.
    pub(crate) fn lost(&self, identity: Identity) -> u32 {
        let notes = self.0.get(&identity).into_iter().flatten();
        let processes: HashSet<u64> = notes.map(|note| note.process).filter(|process| *process != *PROCESS).collect();
        u32::try_from(processes.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use lapin::BasicProperties;
    use lapin::types::{AMQPValue, FieldTable};

    use super::*;

    fn original(properties: BasicProperties, routing_key: &str, payload: &'static str) -> Original {
        Original {
            properties: Arc::new(properties),
            routing_key: routing_key.into(),
            payload: Bytes::from(payload),
            attempt: 1,
            failed: None,
            deliveries: 1,
            is_last: false,
        }
    }

    fn identity(properties: &BasicProperties, routing_key: &str, payload: &'static str) -> Identity {
        Identity::of(&original(properties.clone(), routing_key, payload))
    }

    #[test]
    fn the_hash_is_the_one_of_the_standard() {
        assert_eq!(hashed(OFFSET, b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }

    #[test]
    fn an_identity_differs_with_each_part_and_stays_at_a_redelivery() {
        let properties = BasicProperties::default().with_message_id("7".into()).with_timestamp(9);
        let first = identity(&properties, "key", "shoes");
        let others = [
            identity(&properties.clone().with_message_id("8".into()), "key", "shoes"),
            identity(&properties.clone().with_timestamp(8), "key", "shoes"),
            identity(&BasicProperties::default().with_timestamp(9), "key", "shoes"),
            identity(&properties, "ke", "yshoes"),
            identity(&properties, "key", "socks"),
        ];
        for (index, other) in others.iter().enumerate() {
            assert!(*other != first && !others[..index].contains(other), "{index}");
        }
        let mut counted = FieldTable::default();
        counted.insert("x-delivery-count".into(), AMQPValue::LongLongInt(3));
        let mut again = original(properties.with_headers(counted), "key", "shoes");
        (again.attempt, again.deliveries) = (3, 5);
        assert_eq!(Identity::of(&again), first);
        assert_eq!(first.to_string(), "900e6a5557ec3cd3b150616737bc5ff7", "the same in every build");
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_nothing_else_is_a_record() {
        let (identity, note) = (Identity(7), Note::new());
        let records = [
            Record::Begun(identity, note),
            Record::Heard(identity, note),
            Record::Settled(identity),
            Record::Mark(note),
        ];
        for record in records {
            assert_eq!(Record::read(record.to_string().as_bytes()), Some(record));
        }
        for entry in
            ["", "begun", "begun 7", "begun 7 8", "begun x 8-1", "settled", "mark 7", "ended 7", "begun  7 8-1"]
        {
            assert_eq!(Record::read(entry.as_bytes()), None, "{entry}");
        }
        assert_eq!(Record::read(b"\xff"), None);
    }

    #[test]
    fn what_is_left_counts_by_message_and_not_of_this_process() {
        let (fatal, good) = (Identity(1), Identity(2));
        let other = |number| Note { process: PROCESS.wrapping_add(number), number };
        let mut notes = Notes::default();
        let mut lost_after = |record| {
            notes.take(record);
            (notes.lost(fatal), notes.lost(good))
        };
        assert_eq!(lost_after(Record::Begun(fatal, other(1))), (1, 0));
        assert_eq!(lost_after(Record::Begun(fatal, other(1))), (1, 0), "written twice");
        let of_the_same = Note { number: 7, ..other(1) };
        assert_eq!(lost_after(Record::Begun(fatal, of_the_same)), (1, 0), "equal messages of one process");
        assert_eq!(lost_after(Record::Begun(fatal, other(2))), (2, 0));
        assert_eq!(lost_after(Record::Begun(good, other(3))), (2, 1));
        assert_eq!(lost_after(Record::Begun(fatal, Note::new())), (2, 1), "this process lives");
        assert_eq!(lost_after(Record::Heard(good, other(3))), (2, 0));
        assert_eq!(lost_after(Record::Heard(good, other(3))), (2, 0), "withdrawn twice");
        assert_eq!(lost_after(Record::Heard(fatal, other(9))), (2, 0), "a note that is gone");
        assert_eq!(lost_after(Record::Mark(other(1))), (2, 0));
        assert_eq!(lost_after(Record::Settled(fatal)), (0, 0));
        assert!(notes.0.is_empty());
    }
}

//! Stream entries and their ids, as they are in the server's answers.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::redis::{RedisResult, Value};
use bytes::Bytes;

use crate::error::Result;
use crate::message::{Timestamp, TimestampSource};

use super::super::error::unexpected_reply;
use super::answer::Cursor;
use super::fields::Fields;

/// The id of an entry: milliseconds of the server's clock, and a number within them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EntryId {
    pub(crate) milliseconds: u64,
    pub(crate) sequence: u64,
}

impl EntryId {
    /// The id before every entry.
    pub(crate) const ZERO: Self = Self { milliseconds: 0, sequence: 0 };

    /// Returns the last id before a time. Ids count in milliseconds: an entry of the same
    /// millisecond is not before it.
    pub(crate) fn last_before(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        milliseconds.checked_sub(1).map_or(Self::ZERO, |milliseconds| Self { milliseconds, sequence: u64::MAX })
    }

    /// Returns the last possible id before this one.
    pub(crate) fn before(self) -> Self {
        match (self.sequence.checked_sub(1), self.milliseconds.checked_sub(1)) {
            (Some(sequence), _) => Self { sequence, ..self },
            (None, Some(milliseconds)) => Self { milliseconds, sequence: u64::MAX },
            (None, None) => Self::ZERO,
        }
    }

    /// Maximum length of an id as text, in bytes: two numbers of 20 digits, and a dash.
    pub(crate) const LENGTH: usize = 41;

    /// Reads `milliseconds-sequence`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|byte| *byte == b'-')?;
        Some(Self { milliseconds: number(&text[..dash])?, sequence: number(&text[dash + 1..])? })
    }

    /// Writes `milliseconds-sequence` to the end of `buffer`. This is done for every
    /// acknowledgement, so it avoids the machinery of `Display`.
    pub(crate) fn write(self, buffer: &mut [u8; Self::LENGTH]) -> &[u8] {
        let dash = write_number(self.sequence, buffer, Self::LENGTH) - 1;
        buffer[dash] = b'-';
        let start = write_number(self.milliseconds, buffer, dash);
        &buffer[start..]
    }

    /// Returns the id as text, `milliseconds-sequence`.
    pub(crate) fn to_text(self) -> String {
        let mut buffer = [0; Self::LENGTH];
        String::from_utf8_lossy(self.write(&mut buffer)).into_owned()
    }

    /// Returns the time at which the server stored the entry, if the server chose the id.
    pub(crate) fn timestamp(self) -> Option<Timestamp> {
        let time: SystemTime = UNIX_EPOCH.checked_add(Duration::from_millis(self.milliseconds))?;
        Some(Timestamp { time, source: TimestampSource::Broker })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.sequence)
    }
}

/// Reads a number that consists of digits only.
fn number(digits: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let first = digits.split_first()?;
    first.1.iter().try_fold(digit(first.0)?, |number, byte| number.checked_mul(10)?.checked_add(digit(byte)?))
}

/// Writes digits that end before `end`, and returns where they begin.
fn write_number(mut number: u64, buffer: &mut [u8], end: usize) -> usize {
    let mut start = end;
    loop {
        start -= 1;
        // A remainder by ten is one digit.
        buffer[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return start;
        }
    }
}

/// An entry to deliver.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: EntryId,
    pub(crate) fields: Fields,
    /// Number of times the server has delivered it, including this one.
    pub(crate) deliveries: u32,
    /// Number of attempts that failed before.
    pub(crate) failed: u32,
    /// Number of trials that are noted.
    pub(crate) trials: u32,
}

impl Entry {
    /// Returns the size of its fields, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.fields.size()
    }

    /// Returns an entry that is delivered for the first time.
    fn new(id: EntryId, fields: Fields) -> Self {
        Self { id, fields, deliveries: 1, failed: 0, trials: 0 }
    }
}

/// The entries of an answer, and the ids of those that are pending but no longer in the stream.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) present: Vec<Entry>,
    pub(crate) missing: Vec<EntryId>,
}

impl Entries {
    /// Reads the entries in an answer to `XCLAIM`.
    pub(crate) fn of_list(answer: Value) -> Result<Self> {
        let answer = list(answer)?;
        let mut entries = Self { present: Vec::with_capacity(answer.len()), missing: Vec::new() };
        for entry in answer {
            let mut parts = list(entry)?.into_iter();
            let Some(Value::BulkString(name)) = parts.next() else { return Err(unreadable()) };
            let id = EntryId::parse(&name).ok_or_else(unreadable)?;
            match parts.next() {
                Some(Value::Array(fields)) => {
                    entries.present.push(Entry::new(id, Fields::Values(fields)));
                }
                _ => entries.missing.push(id),
            }
        }
        Ok(entries)
    }
}

/// A line of `XPENDING`: an entry that was delivered and not acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    pub(crate) id: EntryId,
    pub(crate) idle: Duration,
    pub(crate) deliveries: u32,
}

impl Pending {
    /// Reads the lines of an answer.
    pub(crate) fn of_answer(answer: Value) -> Result<Vec<Self>> {
        list(answer)?.into_iter().map(|line| Self::of_line(&list(line)?).ok_or_else(unreadable)).collect()
    }

    /// Reads a line: id, consumer, idle milliseconds, number of deliveries.
    fn of_line(line: &[Value]) -> Option<Self> {
        let (Some(Value::Int(idle)), Some(Value::Int(deliveries))) = (line.get(2), line.get(3)) else { return None };
        let idle = Duration::from_millis(u64::try_from(*idle).unwrap_or_default());
        let deliveries = u32::try_from(*deliveries).unwrap_or(u32::MAX);
        Some(Self { id: line.first().and_then(id)?, idle, deliveries })
    }
}

/// Returns the value of a name in a list of names and values in turn.
pub(crate) fn named<'a>(answer: &'a Value, name: &str) -> Option<&'a Value> {
    let is_named = |key: &Value| matches!(key, Value::BulkString(key) if key == name.as_bytes());
    match answer {
        Value::Array(pairs) => pairs.chunks_exact(2).find(|pair| is_named(&pair[0])).map(|pair| &pair[1]),
        _ => None,
    }
}

/// Returns the id in a value.
pub(crate) fn id(value: &Value) -> Option<EntryId> {
    if let Value::BulkString(text) = value { EntryId::parse(text) } else { None }
}

pub(crate) fn list(value: Value) -> Result<Vec<Value>> {
    if let Value::Array(items) = value { Ok(items) } else { Err(unreadable()) }
}

fn unreadable() -> crate::error::Error {
    unexpected_reply("read the stream")
}

/// Reads the entries of the only stream in an answer to `XREAD` or `XREADGROUP`; none if it waited
/// in vain.
pub(crate) fn entries(answer: &Bytes) -> RedisResult<Entries> {
    let mut entries = Entries::default();
    let mut cursor = Cursor::new(answer);
    // A list of streams, each a name and a list of entries.
    if cursor.list()?.is_none_or(|streams| streams == 0) || cursor.list()?.is_none() {
        return Ok(entries);
    }
    cursor.text()?;
    let count = cursor.list()?.unwrap_or_default();
    entries.present.reserve(count.min(cursor.left()));
    for _ in 0..count {
        cursor.list()?;
        let name = cursor.text()?.unwrap_or_default();
        let id = EntryId::parse(name).ok_or_else(super::answer::unreadable)?;
        let Some(fields) = cursor.list()? else {
            entries.missing.push(id);
            continue;
        };
        let from = answer.len() - cursor.left();
        for _ in 0..fields {
            cursor.text()?;
        }
        let fields = Fields::Wire(answer.slice(from..answer.len() - cursor.left()), fields);
        entries.present.push(Entry::new(id, fields));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(wire: &str) -> Value {
        ::redis::parse_redis_value(wire.replace(' ', "\r\n").as_bytes()).unwrap()
    }

    fn ids(entries: &Entries) -> (Vec<String>, Vec<String>) {
        let present = entries.present.iter().map(|entry| entry.id.to_string()).collect();
        (present, entries.missing.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn reads_ids() {
        let id = EntryId::parse(b"1732300000000-7").unwrap();
        assert_eq!(id, EntryId { milliseconds: 1_732_300_000_000, sequence: 7 });
        assert_eq!(id.to_string(), "1732300000000-7");
        let largest = EntryId::parse(b"18446744073709551615-18446744073709551615").unwrap();
        assert!(largest > id && EntryId::ZERO < id);
        for id in [id, largest, EntryId::ZERO] {
            assert_eq!(id.write(&mut [0; EntryId::LENGTH]), id.to_string().as_bytes());
        }
        assert_eq!(EntryId { milliseconds: 2, sequence: 0 }.before().to_text(), format!("1-{}", u64::MAX));
        assert_eq!((id.before().sequence, EntryId::ZERO.before()), (6, EntryId::ZERO));
        let _no_panic = largest.timestamp();
        for wrong in [&b""[..], b"-", b"1", b"1-", b"-1", b"1-x", b"\xff-1", b"1-1-1", b"18446744073709551616-0"] {
            assert_eq!(EntryId::parse(wrong), None);
        }
    }

    #[test]
    fn finds_the_last_id_before_a_time() {
        let before = |time: Option<SystemTime>| EntryId::last_before(time.unwrap()).to_text();
        let (epoch, time) = (UNIX_EPOCH, Duration::from_micros(1_732_300_000_000_900));
        assert_eq!(before(epoch.checked_add(time)), format!("1732299999999-{}", u64::MAX));
        assert_eq!(before(epoch.checked_add(Duration::from_millis(1))), format!("0-{}", u64::MAX));
        assert_eq!(before(Some(epoch)), "0-0");
        assert_eq!(before(epoch.checked_sub(time)), "0-0");
    }

    #[test]
    fn reads_what_was_claimed() {
        let entries = Entries::of_list(parse("*2 *2 $3 1-1 *2 $1 a $1 b *2 $3 3-3 *0 ")).unwrap();
        assert_eq!(ids(&entries), (vec!["1-1".to_owned(), "3-3".to_owned()], vec![]));
        assert_eq!((entries.present[0].deliveries, entries.present[0].failed), (1, 0));
    }

    #[test]
    fn reads_what_is_pending() {
        let pending = Pending::of_answer(parse("*2 *4 $3 1-1 $1 c :5 :7 *4 $3 2-2 $1 c :-1 :0 ")).unwrap();
        let facts: Vec<_> = pending.iter().map(|pending| (pending.idle.as_millis(), pending.deliveries)).collect();
        assert_eq!(facts, [(5, 7), (0, 0)]);
    }

    #[test]
    fn refuses_other_answers() {
        assert!(Entries::of_list(parse("*1 $1 x ")).is_err());
        assert!(Entries::of_list(parse("+OK ")).is_err());
        assert!(Pending::of_answer(parse("*1 *4 $3 1-1 $1 c :5 $1 x ")).is_err());
    }

    fn read(wire: &str) -> RedisResult<Entries> {
        entries(&Bytes::from(wire.replace(' ', "\r\n")))
    }

    #[test]
    fn finds_the_entries_of_an_answer() {
        let stream = "*2 $1 s *3 *2 $3 1-1 *5 $1 a $1 b $1 c $-1 $1 d *2 $3 2-0 *-1 *2 $3 3-0 *0 ";
        let entries = read(&format!("*1 {stream}")).unwrap();
        let ids: Vec<_> = entries.present.iter().map(|entry| entry.id.to_text()).collect();
        assert_eq!((ids.join(" "), entries.missing.len()), ("1-1 3-0".to_owned(), 1));
        let fields = &entries.present[0].fields;
        assert_eq!(fields.iter().collect::<Vec<_>>(), [Some((&b"a"[..], &b"b"[..])), None]);
        assert!(fields.is_uneven() && !entries.present[1].fields.is_uneven());
        assert_eq!(entries.present[1].fields.iter().count(), 0);
    }

    #[test]
    fn finds_none_where_there_are_none() {
        for wire in ["*-1 ", "*0 ", "*1 *2 $1 s *0 "] {
            assert!(read(wire).unwrap().present.is_empty(), "{wire}");
        }
    }

    #[test]
    fn refuses_answers_of_other_forms() {
        for wire in
            ["", "+OK ", "*1 :1 ", "*1 *2 $1 s *1 *2 $1 x *0 ", "*1 *2 $1 s *1 *2 $3 1-1 *2 $1 a *0 ", "*1 *2 $1 s *9 "]
        {
            assert!(read(wire).is_err(), "{wire}");
        }
    }
}

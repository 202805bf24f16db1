//! The fields of an entry, as they came, and the entries of an answer that was left as it came.

use std::slice::ChunksExact;

use ::redis::{RedisResult, Value};
use bytes::Bytes;

use super::answer::Cursor;
use super::entry::{Entries, Entry, EntryId};

/// Names and values in turn.
#[derive(Debug, Clone)]
pub(super) enum Fields {
    /// As the client parsed them.
    Values(Vec<Value>),
    /// So many of them, a part of an answer of the server.
    Wire(Bytes, usize),
}

impl Fields {
    /// The fields; none for one whose name or value is no text.
    pub(super) fn iter(&self) -> Pairs<'_> {
        match self {
            Self::Values(values) => Pairs::Values(values.chunks_exact(2)),
            Self::Wire(bytes, count) => Pairs::Wire(Cursor::new(bytes), count / 2),
        }
    }

    /// Whether there is a name without a value at the end.
    pub(super) fn is_uneven(&self) -> bool {
        match self {
            Self::Values(values) => values.len() % 2 == 1,
            Self::Wire(_, count) => count % 2 == 1,
        }
    }
}

/// The fields of an entry, one after the other.
#[derive(Debug, Clone)]
pub(super) enum Pairs<'a> {
    Values(ChunksExact<'a, Value>),
    Wire(Cursor<'a>, usize),
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Option<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Values(pairs) => pairs.next().map(|pair| match pair {
                [Value::BulkString(name), Value::BulkString(value)] => Some((name.as_slice(), value.as_slice())),
                _ => None,
            }),
            Self::Wire(cursor, left) => {
                *left = left.checked_sub(1)?;
                // It was gone through once already.
                let (name, value) = (cursor.text().ok()?, cursor.text().ok()?);
                Some(name.zip(value))
            }
        }
    }
}

/// The entries of the one stream that `XREAD` or `XREADGROUP` was asked for; none when it waited in vain.
pub(super) fn entries(answer: &Bytes) -> RedisResult<Entries> {
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
        entries.present.push(Entry { id, fields, attempt: 1 });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn refuses_other_answers() {
        for wire in
            ["", "+OK ", "*1 :1 ", "*1 *2 $1 s *1 *2 $1 x *0 ", "*1 *2 $1 s *1 *2 $3 1-1 *2 $1 a *0 ", "*1 *2 $1 s *9 "]
        {
            assert!(read(wire).is_err(), "{wire}");
        }
    }
}

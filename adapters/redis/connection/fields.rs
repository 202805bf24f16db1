//! Fields of an entry, parsed by the client or as raw bytes.

use std::slice::ChunksExact;

use ::redis::Value;
use bytes::Bytes;

use super::answer::Cursor;

/// Names and values in turn.
#[derive(Debug, Clone)]
pub(crate) enum Fields {
    /// Parsed by the client.
    Values(Vec<Value>),
    /// A part of a server's answer, with the number of names and values in it.
    Wire(Bytes, usize),
}

impl Fields {
    /// Returns the fields; `None` for one whose name or value is not text.
    pub(crate) fn iter(&self) -> Pairs<'_> {
        match self {
            Self::Values(values) => Pairs::Values(values.chunks_exact(2)),
            Self::Wire(bytes, count) => Pairs::Wire(Cursor::new(bytes), count / 2),
        }
    }

    /// Returns their size in bytes, about.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Values(_) => self.iter().flatten().map(|(name, value)| name.len() + value.len()).sum(),
            Self::Wire(bytes, _) => bytes.len(),
        }
    }

    /// Returns `true` if the last name has no value.
    pub(crate) fn is_uneven(&self) -> bool {
        match self {
            Self::Values(values) => values.len() % 2 == 1,
            Self::Wire(_, count) => count % 2 == 1,
        }
    }
}

/// An iterator over the fields of an entry.
#[derive(Debug, Clone)]
pub(crate) enum Pairs<'a> {
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
                // The values have been read once before, so they are complete.
                let (name, value) = (cursor.text().ok()?, cursor.text().ok()?);
                Some(name.zip(value))
            }
        }
    }
}

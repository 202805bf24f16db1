//! The typed headers of a received message, to be written back into a copy of it.
//!
//! The layers above see values as text. A copy that still says the same gets the types that the
//! original had, and the tables that text cannot express.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ShortString};

use super::super::topology::names;
use super::super::wire::bytes::Reader;
use super::super::wire::table::{Entries, Value};
use super::copy::{DEEPEST, is_left_out, table};
use super::incoming::raw_table;
use crate::headers::Headers;

/// Returns the entries of the original's table that agree with the headers of the copy, with their
/// types, and those that headers cannot express.
pub(crate) fn agreeing(original: &BasicProperties, copy: &Headers) -> BTreeMap<ShortString, AMQPValue> {
    let raw = raw_table(original);
    let (texts, mut entries) = (texts(raw), table(Reader::new(raw), DEEPEST));
    entries.retain(|name, _| {
        let name = name.as_str();
        let Some(text) = texts.get(name.as_bytes()) else { return false };
        if is_left_out(name) || names::is_reserved(name) || text.entries > 1 {
            return false;
        }
        let values = text.values.iter().map(|value| &**value);
        // By its exact name: a trace header in other letters was replaced. An entry without any
        // text, such as a table, is not in the headers, so it cannot differ.
        values.eq(copy.iter().filter(|(other, _)| *other == name).map(|(_, value)| value))
    });
    entries
}

/// The values of a name as text, and the number of entries that they are from.
#[derive(Default)]
struct Texts<'a> {
    values: Vec<Cow<'a, [u8]>>,
    entries: usize,
}

fn texts(raw: &[u8]) -> HashMap<&[u8], Texts<'_>> {
    let mut texts: HashMap<&[u8], Texts<'_>> = HashMap::new();
    for (name, value) in Entries::new(raw).flatten() {
        let text = texts.entry(name).or_default();
        text.entries += 1;
        match value {
            Value::Array(elements) => text.values.extend(elements.flatten().filter_map(Value::text)),
            value => text.values.extend(value.text()),
        }
    }
    texts
}

/// Returns the size of a value on the wire, or more.
pub(crate) fn size(value: &AMQPValue) -> usize {
    const TYPE_AND_LENGTH: usize = 5;
    TYPE_AND_LENGTH
        + match value {
            AMQPValue::LongString(text) => text.as_bytes().len(),
            AMQPValue::ByteArray(bytes) => bytes.as_slice().len(),
            AMQPValue::FieldArray(array) => array.as_slice().iter().map(size).sum(),
            AMQPValue::FieldTable(table) => {
                table.inner().iter().map(|(name, value)| 1 + name.as_str().len() + size(value)).sum()
            }
            _ => 8,
        }
}

//! Properties of the parsers of answers and of the fields of entries.
//!
//! They stand here because the parsers are private. They are compiled for unit tests, which apply
//! them to the corpora, and for the fuzz targets, which no other build contains.

use ::redis::Value;
use bytes::Bytes;

use super::connection::answer::{self, Outline};
use super::connection::entry::{self, Entries, EntryId, Pending};
use super::connection::fields::Fields;
use super::headers::{self, Append, Content};
use crate::driver::Outbound;

/// The input is the size of the pieces in which an answer arrives, less one, and bytes of a server.
/// An answer ends at the same place in any pieces, is read as the client reads it, and its entries
/// are the same in both of their forms.
///
/// # Panics
/// Panics if it does not hold.
pub fn answers(input: &[u8]) {
    let [piece, input @ ..] = input else { return };
    let whole = Outline::new().complete(input).ok();
    let mut outline = Outline::new();
    let ends = (usize::from(*piece) + 1..input.len()).step_by(usize::from(*piece) + 1).chain([input.len()]);
    let in_pieces = ends.map(|end| outline.complete(&input[..end]).ok()).find(|found| *found != Some(None));
    assert_eq!(in_pieces.unwrap_or(Some(None)), whole);
    assert!(outline.lacking(input) == 0 || whole.flatten().is_none());
    let _ = answer::read(input);
    let Some(Some(length)) = whole else { return };
    let raw = Bytes::copy_from_slice(&input[..length]);
    let value = answer::read(&raw);
    if let (Ok(value), Ok(clients)) = (&value, ::redis::parse_redis_value(&raw)) {
        assert_eq!(*value, clients);
    }
    let entries = entry::entries(&raw).ok();
    if let Some(entries) = &entries {
        entries.present.iter().for_each(|entry| fields(&entry.fields));
    }
    if let Ok(value) = value {
        let _ = (Pending::of_answer(value.clone()), entry::named(&value, "name"), entry::id(&value));
        let _ = Entries::of_list(value.clone());
        if let (Some(entries), Some(others)) = (entries, of_the_first_stream(value)) {
            same(&entries, &others);
        }
    }
}

/// Returns the entries of the first of the streams in an answer.
fn of_the_first_stream(answer: Value) -> Option<Entries> {
    let stream = entry::list(answer).ok()?.into_iter().next()?;
    Entries::of_list(entry::list(stream).ok()?.pop()?).ok()
}

fn same(one: &Entries, other: &Entries) {
    assert_eq!((one.present.len(), &one.missing), (other.present.len(), &other.missing));
    for (one, other) in one.present.iter().zip(&other.present) {
        assert_eq!((one.id, one.fields.is_uneven()), (other.id, other.fields.is_uneven()));
        assert!(one.fields.iter().eq(other.fields.iter()), "{:?} {:?}", one.fields, other.fields);
        let _ = one.id.timestamp();
        assert_eq!(EntryId::parse(one.id.to_text().as_bytes()), Some(one.id));
    }
}

/// Holds that a message that was read can be written, and is the same when it is read again.
fn fields(fields: &Fields) {
    let Content { payload, key, id, headers, unreadable } = headers::read(fields);
    assert!(headers.len() + unreadable as usize <= fields.iter().count() + 1);
    let message = Outbound { payload, key, id, headers, ..Outbound::default() };
    let command = headers::append("orders", Append { trim: None, must_exist: false }, &message);
    let written = command.args_iter().skip(3).map(|argument| match argument {
        ::redis::Arg::Simple(bytes) => Value::BulkString(bytes.to_vec()),
        _ => Value::Nil,
    });
    let again = headers::read(&Fields::Values(written.collect()));
    assert_eq!(again.headers, message.headers);
    assert_eq!((again.key, again.id, again.unreadable), (message.key, message.id, 0));
    assert_eq!(again.payload, Some(message.payload.unwrap_or_default()));
}

#[cfg(test)]
mod tests {
    use crate::adapters::corpus::{PARSED, replay};

    #[test]
    fn answers() {
        replay("redis_answers", super::answers, PARSED);
    }
}

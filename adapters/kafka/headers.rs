//! Converts headers to and from Kafka's.

use crate::names::header;
use std::ffi::CStr;
use std::sync::OnceLock;

use rdkafka::message::{BorrowedMessage, Header, Headers as _, OwnedHeaders};

use super::connection::native::NativeHeaders;
use crate::error::{Error, ErrorKind, Result};
use crate::headers::Headers;

/// Converts the headers to publish. Returns `None` if there are none.
///
/// `id` replaces the id in the headers, unless both are the same.
pub(super) fn to_native(headers: &Headers, id: Option<&str>) -> Result<Option<OwnedHeaders>> {
    let id = id.filter(|id| headers.get_str(header::MESSAGE_ID) != Some(id));
    if headers.is_empty() && id.is_none() {
        return Ok(None);
    }
    let mut native = OwnedHeaders::new_with_capacity(headers.len() + 1);
    for (name, value) in headers.iter() {
        if name.contains('\0') {
            // Kafka would carry the name, but consumers based on librdkafka, including this
            // library's, would read it truncated.
            return Err(Error::new(ErrorKind::InvalidMessage, "the name of a header holds a NUL byte")
                .with_context("header", name.escape_debug()));
        }
        if id.is_none() || !name.eq_ignore_ascii_case(header::MESSAGE_ID) {
            native = native.insert(Header { key: name, value: Some(value) });
        }
    }
    if let Some(id) = id {
        native = native.insert(Header { key: header::MESSAGE_ID, value: Some(id) });
    }
    Ok(Some(native))
}

/// Returns the headers of a received message, and the number of headers that could not be
/// represented.
pub(super) fn from_native(message: &mut BorrowedMessage<'_>) -> (Headers, u32) {
    let native = match NativeHeaders::of(message) {
        Ok(Some(native)) => native,
        Ok(None) => return (Headers::new(), 0),
        // Their number is unknown.
        Err(_) => return (Headers::new(), 1),
    };
    let (count, bytes) = native.iter().fold((0, 0), |(count, bytes), (name, value)| {
        (count + 1, bytes + name.count_bytes() + value.map_or(0, <[u8]>::len))
    });
    let mut headers = Headers::with_capacity(count, bytes);
    let mut unreadable = 0;
    for (name, value) in native.iter() {
        match name.to_str() {
            Ok(text) if value.is_none_or(|value| is_whole(name, value)) => {
                headers.append(text, value.unwrap_or_default());
            }
            _ => unreadable += 1,
        }
    }
    (headers, unreadable)
}

/// Returns `true` if `name` is the whole name of the header, and not truncated at a NUL byte.
///
/// librdkafka does not return the length of a name. It stores the value directly after the name and
/// a NUL byte, so the distance shows the length. Its interface does not guarantee this: if this
/// librdkafka stores them differently, every name counts as whole.
fn is_whole(name: &CStr, value: &[u8]) -> bool {
    distance(name.to_bytes(), value) == name.count_bytes() + 1 || !values_follow_names()
}

fn values_follow_names() -> bool {
    static PROBED: OnceLock<bool> = OnceLock::new();
    *PROBED.get_or_init(|| {
        let probe = OwnedHeaders::new().insert(Header { key: "probe", value: Some("value") });
        let Header { key, value } = probe.get(0);
        value.is_some_and(|value| distance(key.as_bytes(), value) == key.len() + 1)
    })
}

fn distance(from: &[u8], to: &[u8]) -> usize {
    to.as_ptr().addr().wrapping_sub(from.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(native: &OwnedHeaders) -> Vec<(String, Vec<u8>)> {
        native.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect()
    }

    #[test]
    fn this_librdkafka_keeps_values_behind_names() {
        assert!(values_follow_names(), "names that hold a NUL byte are no longer noticed");
    }

    #[test]
    fn the_id_is_one_header() {
        let headers: Headers = [("a", "1"), ("Message-Id", "old"), ("b", "2")].into_iter().collect();
        let native = to_native(&headers, Some("new")).unwrap().unwrap();
        let expected = [("a", "1"), ("b", "2"), ("message-id", "new")];
        assert_eq!(names(&native), expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));

        let native = to_native(&headers, Some("old")).unwrap().unwrap();
        assert_eq!(names(&native)[1], ("Message-Id".to_owned(), b"old".to_vec()), "the same id is left where it is");
        assert!(to_native(&Headers::new(), None).unwrap().is_none());
    }

    #[test]
    fn a_nul_byte_in_a_name_is_refused() {
        let error = to_native(&[("a\0b", "1")].into_iter().collect(), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidMessage);
        assert_eq!(error.to_string(), "the name of a header holds a NUL byte (header=a\\0b)");
    }
}

//! The properties of headers and of the JSON codec.

use traced_broker::Headers;
use traced_broker::codec::{Decode, Encode, Json};

/// The input is lines: `+name=value` appends, `!name=value` sets, `-name` removes. Headers
/// do what a list of pairs does.
pub fn headers(input: &[u8]) {
    let (mut headers, mut model) = (Headers::new(), Vec::new());
    for line in input.split(|byte| *byte == b'\n') {
        let [operation, rest @ ..] = line else { continue };
        let equals = rest.iter().position(|byte| *byte == b'=').unwrap_or(rest.len());
        let (name, value) = (String::from_utf8_lossy(&rest[..equals]).into_owned(), &rest[equals.min(rest.len())..]);
        match operation {
            b'+' => {
                headers.append(&name, value);
                model.push((name.clone(), value.to_vec()));
            }
            b'!' => {
                headers.insert(&name, value);
                remove(&mut model, &name);
                model.push((name.clone(), value.to_vec()));
            }
            b'-' => assert_eq!(headers.remove(&name), remove(&mut model, &name)),
            _ => continue,
        }
        agree(&headers, &model, &name);
    }
    let shown = format!("{headers:?}");
    assert!(shown.is_ascii() || model.iter().any(|(name, _)| !name.is_ascii()), "values are not shown");
}

fn remove(model: &mut Vec<(String, Vec<u8>)>, name: &str) -> usize {
    let before = model.len();
    model.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    before - model.len()
}

fn agree(headers: &Headers, model: &[(String, Vec<u8>)], name: &str) {
    assert!(headers.iter().eq(model.iter().map(|(name, value)| (name.as_str(), value.as_slice()))));
    assert_eq!((headers.len(), headers.is_empty()), (model.len(), model.is_empty()));
    assert_eq!(headers.byte_len(), model.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>());
    let named = || model.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| &value[..]);
    assert!(headers.get_all(name).eq(named()));
    assert_eq!((headers.get(name), headers.contains(name)), (named().next(), named().next().is_some()));
    assert_eq!(headers.iter().collect::<Headers>(), *headers);
}

/// The input is a payload of JSON. A value that was read can be written, and read again.
pub fn json(input: &[u8]) {
    let payload = bytes::Bytes::copy_from_slice(input);
    let read: Result<serde_json::Value, _> = Json.decode(&payload);
    if let Ok(value) = read {
        let written = Json.encode(&value).expect("a value of JSON");
        // Not compared: the reader rounds the last digit of some numbers.
        let again: Result<serde_json::Value, _> = Json.decode(&written);
        assert!(again.is_ok());
    }
}

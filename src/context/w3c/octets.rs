//! Classes of bytes, white space and percent-encoding, as the grammars of the headers use them.

/// Bytes of a `tracestate` key after the first (Trace Context Level 2, "Key").
pub(super) const STATE_KEY: u8 = 1;
/// Bytes of a `tracestate` value (Trace Context Level 2, "Value").
pub(super) const STATE_VALUE: u8 = 1 << 1;
/// Bytes of a `token`: a baggage key, or the key of a property (RFC 9110, section 5.6.2).
pub(super) const TOKEN: u8 = 1 << 2;
/// Bytes of a baggage value, `baggage-octet` (Baggage, "Definition").
pub(super) const BAGGAGE_OCTET: u8 = 1 << 3;
/// Bytes that are not encoded in a baggage value. `%` must be encoded (Baggage, "value"); `=` may
/// be, and is, because some widespread readers cut a value at it.
pub(super) const PLAIN: u8 = 1 << 4;

/// Returns `true` if every byte belongs to the class, also for an empty slice.
pub(super) fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().all(|byte| is(*byte, class))
}

/// Returns the bytes without optional white space (spaces and tabs) at both ends (RFC 9110, section
/// 5.6.3).
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Decodes percent-encoded bytes. Bytes that are not UTF-8 become U+FFFD (Baggage, "value"); a `%`
/// without two digits after it is kept.
pub(super) fn percent_decode(encoded: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let [first, tail @ ..] = rest {
        let (byte, tail) = escape(rest).unwrap_or((*first, tail));
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Appends text, with every byte outside the class percent-encoded.
pub(super) fn percent_encode(text: &str, class: u8, out: &mut String) {
    if all(text.as_bytes(), class) && !text.contains('%') {
        out.push_str(text);
        return;
    }
    for byte in text.bytes() {
        push(byte, class, out);
    }
}

/// Appends text that may already be percent-encoded: escapes stay as they are, the rest is treated
/// as by [`percent_encode`].
pub(super) fn percent_complete(text: &str, class: u8, out: &mut String) {
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if escape(rest).is_some() {
            out.push('%');
        } else {
            push(*first, class, out);
        }
        rest = tail;
    }
}

/// Appends one byte: unchanged if the class contains it, otherwise percent-encoded. A `%` is always
/// encoded.
fn push(byte: u8, class: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if is(byte, class) && byte != b'%' {
        out.push(char::from(byte));
    } else {
        out.push('%');
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 0x0f)]));
    }
}

/// Returns the byte for which an escape at the start stands, and the bytes after it.
fn escape(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let [b'%', high, low, rest @ ..] = bytes else {
        return None;
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let value = digit(high)? << 4 | digit(low)?;
    Some((u8::try_from(value).ok()?, rest))
}

fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// The classes of every byte.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = classes_of(byte as u8);
        byte += 1;
    }
    classes
};

const fn classes_of(byte: u8) -> u8 {
    let mut classes = 0;
    if matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@') {
        classes |= STATE_KEY;
    }
    if matches!(byte, 0x20..=0x7e) && !matches!(byte, b',' | b'=') {
        classes |= STATE_VALUE;
    }
    if byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+')
        || matches!(byte, b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
    {
        classes |= TOKEN;
    }
    if matches!(byte, 0x21..=0x7e) && !matches!(byte, b'"' | b',' | b';' | b'\\') {
        classes |= BAGGAGE_OCTET;
        if !matches!(byte, b'%' | b'=') {
            classes |= PLAIN;
        }
    }
    classes
}

//! Ids in base64, as protobuf's JSON mapping writes bytes.

use std::fmt::Write as _;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Returns the hex form of `text` if it is eight or sixteen bytes in base64 (RFC 4648, section 4),
/// padded or not; unused bits must be zero.
pub(super) fn to_hex(text: &str) -> Option<String> {
    let (digits, bytes) = match text.len() {
        11 => (text, 8),
        12 => (text.strip_suffix('=')?, 8),
        22 => (text, 16),
        24 => (text.strip_suffix("==")?, 16),
        _ => return None,
    };
    let mut value: u128 = 0;
    let spare = digits.len() * 6 - bytes * 8;
    for (position, digit) in digits.bytes().enumerate() {
        let six = ALPHABET.iter().position(|letter| *letter == digit)? as u128;
        if position + 1 < digits.len() {
            value = value << 6 | six;
        } else {
            let kept = 6 - spare;
            (six.trailing_zeros() as usize >= spare).then_some(())?;
            value = value << kept | six >> spare;
        }
    }
    let mut hex = String::with_capacity(bytes * 2);
    write!(hex, "{value:0width$x}", width = bytes * 2).ok()?;
    Some(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_and_sixteen_bytes_become_hex() {
        let trace = "5b8efff798038103d269b633813fc60c";
        assert_eq!(to_hex("W47/95gDgQPSabYzgT/GDA==").as_deref(), Some(trace));
        assert_eq!(to_hex("W47/95gDgQPSabYzgT/GDA").as_deref(), Some(trace));
        assert_eq!(to_hex("APBnqgupArE=").as_deref(), Some("00f067aa0ba902b1"));
        assert_eq!(to_hex("//////////8").as_deref(), Some("ffffffffffffffff"));
        assert_eq!(to_hex("AAAAAAAAAAA=").as_deref(), Some("0000000000000000"));
    }

    #[test]
    fn nothing_else_does() {
        let wrong = ["", "APBnqgupAr", "APBnqgupArF=", "APBnqgupAr==", "APBnqgup-rE=", "APBnqgup ArE", "ä12345678"];
        assert_eq!(wrong.map(to_hex), [const { None }; 7]);
    }
}

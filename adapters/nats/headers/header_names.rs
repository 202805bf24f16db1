//! Spelling of header names, for readers that know one spelling only.

use std::str::FromStr;

use crate::driver::Outbound;
use crate::error::{Error, ErrorKind, Result};
use crate::headers::Headers;

/// The spelling of header names; the URL option `header_names`.
///
/// NATS distinguishes upper and lower case. Readers of this library find a header in any case, so
/// they do not need this option.
///
/// ```
/// use traced_broker::ErrorKind;
/// use traced_broker::adapters::nats::HeaderNames;
///
/// assert_eq!("canonical".parse::<HeaderNames>()?, HeaderNames::Canonical);
/// assert_eq!(HeaderNames::default(), HeaderNames::Exact);
/// assert_eq!("lower".parse::<HeaderNames>().unwrap_err().kind(), ErrorKind::InvalidConfig);
/// # Ok::<(), traced_broker::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderNames {
    /// Names as given, those of a trace in lower case; `header_names=exact`.
    #[default]
    Exact,
    /// Names like Go's HTTP headers, with a capital at the start and after each hyphen:
    /// `Traceparent`, `Content-Type`; `header_names=canonical`. For services in Go that read by
    /// `http.Header`, or OpenTelemetry's `propagation.HeaderCarrier`, and find no other spelling. A
    /// name with a character that HTTP does not allow in names stays unchanged, as in Go.
    Canonical,
}

impl FromStr for HeaderNames {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "exact" => Ok(Self::Exact),
            "canonical" => Ok(Self::Canonical),
            _ => Err(Error::new(ErrorKind::InvalidConfig, "the option header_names is exact or canonical")),
        }
    }
}

impl HeaderNames {
    /// Returns the message with its names in this spelling.
    pub(crate) fn spell(self, mut message: Outbound) -> Outbound {
        if self == Self::Canonical && !message.headers.is_empty() {
            let mut spelled = Headers::with_capacity(message.headers.len(), message.headers.byte_len());
            for (name, value) in message.headers.iter() {
                spelled.append(&canonical(name), value);
            }
            message.headers = spelled;
        }
        message
    }
}

fn canonical(name: &str) -> String {
    if !name.bytes().all(is_token) {
        return name.to_owned();
    }
    let mut at_start = true;
    let spelled = name.chars().map(|letter| {
        let capital = std::mem::replace(&mut at_start, letter == '-');
        if capital { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
    });
    spelled.collect()
}

/// Returns `true` for a token character of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_go_spells_them() {
        let spelled = ["traceparent", "content-type", "X-B3-TraceId", "-a--b", "a_b", "ü-x", "a(b)", ""];
        let expected = ["Traceparent", "Content-Type", "X-B3-Traceid", "-A--B", "A_b", "ü-x", "a(b)", ""];
        assert_eq!(spelled.map(canonical), expected);
    }

    #[test]
    fn only_canonical_changes_anything() {
        let headers: Headers = [("traceparent", "1"), ("b", "2"), ("B", "3")].into_iter().collect();
        let message = || Outbound { headers: headers.clone(), ..Outbound::default() };
        assert_eq!(HeaderNames::Exact.spell(message()).headers, headers);
        let spelled = HeaderNames::Canonical.spell(message()).headers;
        assert_eq!(spelled.iter().collect::<Vec<_>>(), [("Traceparent", &b"1"[..]), ("B", b"2"), ("B", b"3")]);
    }
}

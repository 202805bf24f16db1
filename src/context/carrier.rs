//! The TextMap carrier, through which OpenTelemetry propagators read and write [`Headers`], in the
//! same way on every broker.

use opentelemetry::propagation::{Extractor, Injector};

use super::dialect::{b3, jaeger};
use crate::headers::{Headers, starts_with};

/// The headers whose values form one comma-separated list if there are several (W3C Trace Context
/// §3.3.1 and W3C Baggage §3.3).
const LISTS: [&str; 2] = ["tracestate", "baggage"];

/// An [`Injector`] that writes propagation fields into [`Headers`].
///
/// Names are written in lower case, as on the wire of every broker, with two exceptions that follow
/// what other languages read: B3 in several headers is also written as `X-B3-TraceId` and so on,
/// because brokers tell upper from lower case and each language looks for one of the two; and
/// Jaeger's `uberctx-…` keeps the case of the key. Setting a field replaces every header of its
/// name in any case. An empty value, or one with control characters, is not written at all.
///
/// ```
/// use opentelemetry::propagation::Injector;
/// use traced_broker::{Headers, carrier::HeaderInjector};
///
/// let mut headers: Headers = [("B3", "0")].into_iter().collect();
/// HeaderInjector::new(&mut headers).set("b3", "1".to_owned());
/// HeaderInjector::new(&mut headers).set("baggage", "user=a\r\nadmin: 1".to_owned());
/// assert_eq!(headers.iter().collect::<Vec<_>>(), [("b3", &b"1"[..])]);
/// ```
#[derive(Debug)]
pub struct HeaderInjector<'a>(&'a mut Headers);

impl<'a> HeaderInjector<'a> {
    /// Creates an injector into `headers`.
    pub fn new(headers: &'a mut Headers) -> Self {
        Self(headers)
    }
}

impl Injector for HeaderInjector<'_> {
    fn set(&mut self, name: &str, value: String) {
        self.0.remove(name);
        if value.is_empty() || value.chars().any(char::is_control) {
            return;
        }
        if is_lower(name) || starts_with(name, jaeger::BAGGAGE) {
            self.0.append(name, &value);
        } else {
            self.0.append(&name.to_ascii_lowercase(), &value);
        }
        if let Some(spelling) = b3::SPELLINGS.into_iter().find(|spelling| spelling.eq_ignore_ascii_case(name)) {
            self.0.append(spelling, &value);
        }
    }
}

/// An [`Extractor`] that reads propagation fields from [`Headers`].
///
/// Names are found in any case. Several `tracestate` or `baggage` headers read as one list, in
/// order. For any other field, several equal values read as one value and different values read as
/// absent: languages disagree on which of them counts, so none can be trusted. A value that is not
/// text, or contains control characters, reads as absent.
///
/// ```
/// use opentelemetry::propagation::Extractor;
/// use traced_broker::{Headers, carrier::HeaderExtractor};
///
/// let headers: Headers =
///     [("Baggage", "a=1"), ("baggage", "b=2"), ("b3", "0"), ("B3", "1")].into_iter().collect();
/// let extractor = HeaderExtractor::new(&headers);
/// assert_eq!(extractor.get("baggage"), Some("a=1,b=2"));
/// assert_eq!(extractor.get("b3"), None); // two different values
/// ```
#[derive(Debug)]
pub struct HeaderExtractor<'a> {
    headers: &'a Headers,
    /// Lists that are joined from several headers; usually empty, and so not allocated.
    joined: Vec<(&'static str, String)>,
}

impl<'a> HeaderExtractor<'a> {
    /// Creates an extractor from `headers`.
    pub fn new(headers: &'a Headers) -> Self {
        let joined = LISTS
            .into_iter()
            .filter(|name| headers.get_all(name).nth(1).is_some())
            .map(|name| (name, headers.get_all(name).filter_map(text).collect::<Vec<_>>().join(",")))
            .collect();
        Self { headers, joined }
    }
}

impl Extractor for HeaderExtractor<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        if let Some((_, list)) = self.joined.iter().find(|(joined, _)| joined.eq_ignore_ascii_case(name)) {
            return Some(list);
        }
        let first = self.headers.get(name)?;
        // White space around a value is not part of it (RFC 9110, section 5.5).
        if self.headers.get_all(name).any(|other| trimmed(other) != trimmed(first)) {
            return None;
        }
        text(first)
    }

    fn keys(&self) -> Vec<&str> {
        self.headers.iter().map(|(name, _)| name).collect()
    }

    fn get_all(&self, name: &str) -> Option<Vec<&str>> {
        self.get(name).map(|value| vec![value])
    }
}

fn is_lower(name: &str) -> bool {
    !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| !text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t'))
}

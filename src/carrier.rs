//! The TextMap carrier: how OpenTelemetry propagators read and write [`Headers`], on every broker alike.

use opentelemetry::propagation::{Extractor, Injector};

use crate::headers::Headers;

/// Headers whose values form one comma-separated list when there are several
/// (W3C Trace Context §3.3.1 and W3C Baggage §3.3).
const LISTS: [&str; 2] = ["tracestate", "baggage"];

/// Writes propagation fields into [`Headers`].
///
/// Names are written in lower case, as the wire of every broker carries them; a field that is set replaces every header of its name in any
/// case; an empty value, or one with control characters, is not written at all.
#[derive(Debug)]
pub struct HeaderInjector<'a>(&'a mut Headers);

impl<'a> HeaderInjector<'a> {
    /// An injector into `headers`.
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
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.0.append(&name.to_ascii_lowercase(), value);
        } else {
            self.0.append(name, value);
        }
    }
}

/// Reads propagation fields from [`Headers`].
///
/// Names are found in any case. Several `tracestate` or `baggage` headers read as one list, in order. Of any other
/// field, several equal values read as one and several different values as none: languages disagree on which of two counts, so
/// neither can be trusted. A value that is not text, or holds control characters, reads as absent.
#[derive(Debug)]
pub struct HeaderExtractor<'a> {
    headers: &'a Headers,
    /// Lists of more than one header; empty, and so not allocated, in the usual case.
    joined: Vec<(&'static str, String)>,
}

impl<'a> HeaderExtractor<'a> {
    /// An extractor from `headers`.
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

fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| !text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t'))
}

//! Single variables: what they may hold, and what is said when they hold something else.

use std::ffi::OsString;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// Reads variables by name.
pub(super) struct Values<F>(pub(super) F);

impl<F: Fn(&'static str) -> Option<OsString>> Values<F> {
    /// The text of a variable; `None` for one that is empty or not set. White space is not taken away: the SDK does not either.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>> {
        let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        value.into_string().map(Some).map_err(|_| invalid(name, "is not text"))
    }

    /// A whole number.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>> {
        let number = self.text(name)?.map(|text| text.parse());
        number.transpose().map_err(|_| invalid(name, "must be a whole number"))
    }

    /// As [`number`](Self::number), of which there has to be at least one.
    pub(super) fn positive(&self, name: &'static str) -> Result<Option<u64>> {
        match self.number(name)? {
            Some(0) => Err(invalid(name, "must be more than 0")),
            number => Ok(number),
        }
    }

    /// The first of these variables that is set, with its name: the one for a signal comes before the one for all.
    pub(super) fn first<T>(
        &self,
        names: [&'static str; 2],
        read: impl Fn(&Self, &'static str) -> Result<Option<T>>,
    ) -> Result<Option<(&'static str, T)>> {
        for name in names {
            if let Some(value) = read(self, name)? {
                return Ok(Some((name, value)));
            }
        }
        Ok(None)
    }

    /// A variable that can only be one of these words, in upper case or lower.
    pub(super) fn one_of(&self, name: &'static str, known: &[&str]) -> Result<Option<String>> {
        match self.text(name)?.map(|text| text.to_ascii_lowercase()) {
            Some(text) if !known.contains(&text.as_str()) => {
                Err(invalid(name, format!("must be one of: {}", known.join(", "))))
            }
            text => Ok(text),
        }
    }

    /// A time in milliseconds.
    pub(super) fn milliseconds(&self, name: &'static str) -> Result<Option<Duration>> {
        Ok(self.positive(name)?.map(Duration::from_millis))
    }

    /// A list of `name=value`. Nothing of it is repeated: headers hold passwords.
    pub(super) fn pairs(&self, name: &'static str) -> Result<Vec<String>> {
        let Some(text) = self.text(name)? else { return Ok(Vec::new()) };
        let members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
        let names = members.enumerate().map(|(index, member)| match member.split_once('=') {
            Some((key, _)) if !key.trim().is_empty() => Ok(key.trim().to_owned()),
            _ => Err(invalid(name, format!("member {} is not of the form name=value", index + 1))),
        });
        names.collect()
    }

    /// A URL that can be spoken to: its text is not repeated, for it may hold a password.
    pub(super) fn endpoint(&self, name: &'static str) -> Result<Option<String>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let url = reqwest::Url::parse(&text).map_err(|error| invalid(name, format!("is not a URL: {error}")))?;
        match url.scheme() {
            "http" if url.has_host() => Ok(Some(text)),
            "https" => Err(unsupported(name, "there is no TLS here: send to a Collector close by, over http://")),
            _ => Err(invalid(name, "must begin with http:// and name a host")),
        }
    }
}

/// A variable that makes no sense.
pub(super) fn invalid(variable: &'static str, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{variable} {why}")).with_context("variable", variable)
}

/// A variable that asks for what is not there.
pub(super) fn unsupported(variable: &'static str, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{variable}: {why}")).with_context("variable", variable)
}

//! Single variables: their valid values, and the errors for all others.

use std::ffi::OsString;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// A reader of variables by name.
pub(super) struct Values<F>(pub(super) F);

impl<F: Fn(&'static str) -> Option<OsString>> Values<F> {
    /// Returns the text of a variable; `None` if it is empty or not set. White space is not
    /// trimmed, as in the SDK.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>> {
        let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        value.into_string().map(Some).map_err(|_| invalid(name, "is not text"))
    }

    /// Reads a whole number.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>> {
        let number = self.text(name)?.map(|text| text.parse());
        number.transpose().map_err(|_| invalid(name, "must be a whole number"))
    }

    /// Reads a whole number of at least 1.
    pub(super) fn positive(&self, name: &'static str) -> Result<Option<u64>> {
        match self.number(name)? {
            Some(0) => Err(invalid(name, "must be more than 0")),
            number => Ok(number),
        }
    }

    /// Returns the first of these variables that is set, with its name: the variable for one signal
    /// comes before the one for all.
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

    /// Reads a variable that must be one of these words, in upper or lower case.
    pub(super) fn one_of(&self, name: &'static str, known: &[&str]) -> Result<Option<String>> {
        match self.text(name)?.map(|text| text.to_ascii_lowercase()) {
            Some(text) if !known.contains(&text.as_str()) => {
                Err(invalid(name, format!("must be one of: {}", known.join(", "))))
            }
            text => Ok(text),
        }
    }

    /// Reads a duration in milliseconds.
    pub(super) fn milliseconds(&self, name: &'static str) -> Result<Option<Duration>> {
        Ok(self.positive(name)?.map(Duration::from_millis))
    }

    /// Reads a list of `name=value`, and returns the names. Errors do not repeat the list, because
    /// headers contain passwords.
    pub(super) fn pairs(&self, name: &'static str) -> Result<Vec<String>> {
        let Some(text) = self.text(name)? else { return Ok(Vec::new()) };
        let members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
        let names = members.enumerate().map(|(index, member)| match member.split_once('=') {
            Some((key, _)) if !key.trim().is_empty() => Ok(key.trim().to_owned()),
            _ => Err(invalid(name, format!("member {} is not of the form name=value", index + 1))),
        });
        names.collect()
    }

    /// Reads a URL with the scheme `http`. Errors do not repeat it, because it may contain a
    /// password.
    pub(super) fn endpoint(&self, name: &'static str) -> Result<Option<String>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let url = reqwest::Url::parse(&text).map_err(|error| invalid(name, format!("is not a URL: {error}")))?;
        match url.scheme() {
            "http" if url.has_host() => Ok(Some(text)),
            "https" => Err(unsupported(name, "TLS is not supported: send to a nearby Collector over http://")),
            _ => Err(invalid(name, "must begin with http:// and name a host")),
        }
    }
}

/// Returns the error for an invalid variable.
pub(super) fn invalid(variable: &'static str, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{variable} {why}")).with_context("variable", variable)
}

/// Returns the error for a variable that asks for a missing feature.
pub(super) fn unsupported(variable: &'static str, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{variable}: {why}")).with_context("variable", variable)
}

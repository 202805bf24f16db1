//! Certificates and keys in PEM: files, or texts in memory.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Pem {
    File(PathBuf),
    Text(Vec<u8>),
}

impl Pem {
    pub(super) fn file(path: impl AsRef<Path>) -> Self {
        Self::File(path.as_ref().to_owned())
    }

    pub(super) fn text(text: impl Into<Vec<u8>>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Text(_) => None,
        }
    }

    /// Returns the text as it is now.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] with the option and the file that cannot be read.
    pub(super) fn read(&self, option: &'static str) -> Result<Vec<u8>> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => std::fs::read(path)
                .map_err(|error| self.refused("the PEM file cannot be read", option).with_source(error)),
        }
    }

    /// Returns the error of this source, with the option and the file.
    pub(super) fn refused(&self, message: &'static str, option: &'static str) -> Error {
        let error = Error::new(ErrorKind::InvalidConfig, message).with_context("option", option);
        match self {
            Self::File(path) => error.with_context("file", path.display()),
            Self::Text(_) => error,
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            // It may be a key.
            Self::Text(text) => write!(f, "[{} bytes]", text.len()),
        }
    }
}

//! Options that several commands read in the same way.

use std::fs;

use crate::error::CliError;

/// Reads the option `--data`: a text, or the contents of a file after `@`.
pub(crate) fn data(value: &str) -> Result<Vec<u8>, CliError> {
    match value.strip_prefix('@') {
        None => Ok(value.as_bytes().to_vec()),
        Some(path) => {
            fs::read(path).map_err(|error| CliError::with_source(format_args!("--data: cannot read {path}"), &error))
        }
    }
}

/// Splits each `Name: value` that was given as `option` and reads it with `read`.
///
/// An error does not repeat the line, because it may hold a secret.
pub(crate) fn headers<'a>(
    option: &str,
    lines: &'a [String],
    mut read: impl FnMut(&'a str, &'a str) -> Option<()>,
) -> Result<(), CliError> {
    for (index, line) in lines.iter().enumerate() {
        let header = line.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
        header
            .and_then(|(name, value)| read(name, value))
            .ok_or_else(|| CliError::new(format!("{option} number {} is not of the form `Name: value`", index + 1)))?;
    }
    Ok(())
}

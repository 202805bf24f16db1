//! The HTTP client, with limits and without secrets in messages.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url, redirect};

use crate::error::{CliError, chain};
use crate::input;

/// Maximum duration of connecting to a server.
const CONNECT: Duration = Duration::from_secs(5);

/// Creates a client that follows no redirection, because that could send headers to another host.
pub(crate) fn client() -> Result<Client, CliError> {
    let agent = concat!("traced-broker/", env!("CARGO_PKG_VERSION"));
    let builder = Client::builder().user_agent(agent).connect_timeout(CONNECT).redirect(redirect::Policy::none());
    builder.build().map_err(|error| CliError::with_source("cannot create an HTTP client", &error))
}

/// Parses the URL given as `option`.
pub(crate) fn url(option: &str, text: &str) -> Result<Url, CliError> {
    // The error does not repeat the text, because it may hold a password.
    let url: Url = text.parse().map_err(|error| CliError::new(format!("{option} is not a URL: {error}")))?;
    match url.scheme() {
        "http" => Ok(url),
        "https" => Err(CliError::new(format!("{option}: TLS is not supported: give the http:// URL of a local proxy"))),
        scheme => Err(CliError::new(format!("{option}: the URL must start with http://, not {scheme}:"))),
    }
}

/// Returns the URL for people, without its user, password and query.
pub(crate) fn shown(url: &Url) -> String {
    let user = if url.username().is_empty() && url.password().is_none() { "" } else { "***@" };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let query = if url.query().is_some() { "?***" } else { "" };
    format!("{}://{user}{}{port}{}{query}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// Parses the headers given as `option`.
pub(crate) fn headers(option: &str, lines: &[String]) -> Result<HeaderMap, CliError> {
    let mut headers = HeaderMap::new();
    input::headers(option, lines, |name, value| {
        let name: HeaderName = name.parse().ok()?;
        let mut value: HeaderValue = value.parse().ok()?;
        value.set_sensitive(true);
        headers.append(name, value);
        Some(())
    })?;
    Ok(headers)
}

/// Describes a failed request without its URL, which may hold a password.
pub(crate) fn failure(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    chain(&error.without_url())
}

/// Reads the body; `None` if it is longer than `max` bytes.
pub(crate) async fn body(mut response: Response, max: usize) -> Result<Option<Vec<u8>>, reqwest::Error> {
    if response.content_length().is_some_and(|length| length > max as u64) {
        return Ok(None);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        let shown = |text: &str| super::shown(&text.parse().unwrap());
        assert_eq!(shown("http://me:secret@tempo:3200/base?token=secret"), "http://***@tempo:3200/base?***");
        assert_eq!(shown("http://secret@tempo/"), "http://***@tempo/");
        assert_eq!(shown("http://[::1]:3200/x#secret"), "http://[::1]:3200/x");
    }

    #[test]
    fn a_wrong_header_or_url_is_not_repeated() {
        for line in ["secret", "se cret: 1", "Name: se\ncret"] {
            let error = headers("--header", &["A: b".to_owned(), line.to_owned()]).unwrap_err().to_string();
            assert_eq!(error, "--header number 2 is not of the form `Name: value`");
        }
        for text in ["secret", "http://me:secret@[", "ftp://me:secret@host", "https://me:secret@host"] {
            let error = url("--tempo", text).unwrap_err().to_string();
            assert!(error.contains("--tempo") && !error.contains("secret"), "{error}");
        }
    }
}

//! HTTP, with bounds, and without telling secrets.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url, redirect};

use crate::trouble::{Trouble, chain};

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A client that goes where it is sent and nowhere else: a redirection could carry headers to another host.
pub(crate) fn client() -> Result<Client, Trouble> {
    let agent = concat!("traced-broker/", env!("CARGO_PKG_VERSION"));
    let builder = Client::builder().user_agent(agent).connect_timeout(CONNECT).redirect(redirect::Policy::none());
    builder.build().map_err(|error| Trouble::because("no HTTP client", &error))
}

/// Reads the URL given as `option`.
pub(crate) fn url(option: &str, text: &str) -> Result<Url, Trouble> {
    // The text is not repeated: it may hold a password.
    let url: Url = text.parse().map_err(|error| Trouble::new(format!("the URL of {option} is not one: {error}")))?;
    match url.scheme() {
        "http" => Ok(url),
        "https" => {
            Err(Trouble::new(format!("{option}: this command speaks no TLS: give an http:// URL, of a local proxy")))
        }
        scheme => Err(Trouble::new(format!("{option}: the URL must start with http://, not {scheme}:"))),
    }
}

/// A URL for people: without user, password, or what a query says.
pub(crate) fn shown(url: &Url) -> String {
    let user = if url.username().is_empty() && url.password().is_none() { "" } else { "***@" };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let query = if url.query().is_some() { "?***" } else { "" };
    format!("{}://{user}{}{port}{}{query}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// Reads the headers given as `option`.
pub(crate) fn headers(option: &str, lines: &[String]) -> Result<HeaderMap, Trouble> {
    let mut headers = HeaderMap::new();
    for (index, line) in lines.iter().enumerate() {
        let wrong = || Trouble::new(format!("{option} number {} is not of the form `Name: value`", index + 1));
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        let mut value: HeaderValue = value.trim().parse().map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// What went wrong on the way, without the URL, which may hold a password.
pub(crate) fn failure(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    chain(&error.without_url())
}

/// The body, if it is no longer than `most` bytes; `None` if it is.
pub(crate) async fn body(mut response: Response, most: usize) -> Result<Option<Vec<u8>>, reqwest::Error> {
    if response.content_length().is_some_and(|length| length > most as u64) {
        return Ok(None);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > most {
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
            let trouble = headers("--header", &["A: b".to_owned(), line.to_owned()]).unwrap_err().to_string();
            assert_eq!(trouble, "--header number 2 is not of the form `Name: value`");
        }
        for text in ["secret", "http://me:secret@[", "ftp://me:secret@host", "https://me:secret@host"] {
            let trouble = url("--tempo", text).unwrap_err().to_string();
            assert!(trouble.contains("--tempo") && !trouble.contains("secret"), "{trouble}");
        }
    }
}

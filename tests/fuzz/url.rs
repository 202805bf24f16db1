//! The properties of the parser of URLs: a URL that was read can be written, and no text for people
//! shows a secret.

use std::fmt::Write as _;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use traced_broker::BrokerUrl;

/// The password in the inputs.
const SECRET: &str = "s3cret";

/// The input is a URL.
pub fn url(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let (shown, url) = match BrokerUrl::parse(text) {
        Ok(url) => (format!("{url:?} {:?}", url.options()), Some(url)),
        Err(error) => (format!("{error} {error:?}"), None),
    };
    assert!(!has_secret(text) || !shown.contains(SECRET), "{shown}");
    let Some(url) = url else { return };
    let hosts = url.hosts(4222);
    assert!(hosts.iter().all(|(host, _)| !host.is_empty() && !host.contains(char::is_whitespace)), "{hosts:?}");
    let again = BrokerUrl::parse(&written(&url)).expect("a URL that was written");
    assert_eq!((again.scheme(), again.path(), again.hosts(4222)), (url.scheme(), url.path(), hosts));
    assert_eq!((again.username(), again.password()), (url.username(), url.password()));
    let mut options = url.options();
    let taken = [options.take::<String>("topology"), options.take("name")];
    let errors = taken.into_iter().filter_map(Result::err).chain(options.finish().err());
    for error in errors {
        let shown = format!("{error} {error:?}");
        assert!(!has_secret(text) || !shown.contains(SECRET), "{shown}");
    }
}

/// Returns `true` if the text has the secret as a password, in the eyes of a person: between a
/// colon and the last `@`. A person may forget to encode a slash or a question mark in it, but the
/// `@` in the value of an option does not end a password.
fn has_secret(text: &str) -> bool {
    let parts = text.split_once("://").and_then(|(_, rest)| rest.split('=').next()?.rsplit_once('@'));
    let Some((before, after)) = parts else { return false };
    let in_password = before.split_once(':').is_some_and(|(user, password)| {
        // Not also in a part that may be shown.
        !user.contains(SECRET) && password.contains(SECRET)
    });
    // Scheme and host are shown in small letters, and decoded.
    let shown = percent_decode_str(text).decode_utf8_lossy().to_ascii_lowercase();
    in_password && !after.contains(SECRET) && shown.matches(SECRET).count() == 1
}

/// Writes the URL again, without its options.
fn written(url: &BrokerUrl) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut text = format!("{}://", url.scheme());
    if let Some(user) = url.username() {
        let password = url.password().map_or(String::new(), |secret| encoded(secret.expose()));
        let _ = write!(text, "{}:{password}@", encoded(user));
    }
    // With two default ports, a port that is not given is told from one that is.
    let hosts = url.name().map(|_| url.hosts(1).into_iter().zip(url.hosts(2)));
    for (place, ((host, port), (_, other))) in hosts.into_iter().flatten().enumerate() {
        let comma = if place > 0 { "," } else { "" };
        let port = if port == other { format!(":{port}") } else { String::new() };
        let _ = write!(text, "{comma}{}{port}", encoded(&host));
    }
    let _ = write!(text, "/{}", encoded(url.path()));
    text
}

//! Headers without values that look like credentials.

/// The replacement of a credential.
pub(crate) const REDACTED: &str = "***";

/// Parts of names of credentials, compared with the letters and digits of a name.
const NAME_PARTS: [&str; 11] = [
    "authorization",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "cookie",
];

/// Whole words in names of credentials.
const NAME_WORDS: [&str; 6] = ["auth", "jwt", "bearer", "sid", "pwd", "session"];

/// Prefixes of values that are credentials.
const VALUE_PREFIXES: [&str; 3] = ["bearer ", "basic ", "digest "];

/// Returns the value of a header as it may be shown; `None` if it looks like a credential.
///
/// Credentials within `baggage` are replaced one by one.
pub(crate) fn redact(name: &str, value: &[u8]) -> Option<Vec<u8>> {
    if names_credential(name) || is_credential(value) {
        return None;
    }
    let is_baggage = name.eq_ignore_ascii_case("baggage");
    Some(if is_baggage { baggage(value) } else { value.to_vec() })
}

fn names_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let joined: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    NAME_PARTS.iter().any(|part| joined.contains(part)) || words.any(|word| NAME_WORDS.contains(&word))
}

/// Returns `true` for a value with an authentication scheme, a JSON web token, or a URL with a
/// password.
fn is_credential(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value).map(str::trim_start) else { return false };
    let has_scheme = VALUE_PREFIXES
        .iter()
        .any(|prefix| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)));
    let is_token = text.starts_with("eyJ") && text.split('.').count() == 3 && !text.contains(' ');
    let authority = text.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', ' ']).next());
    let has_password =
        authority.and_then(|authority| authority.rsplit_once('@')).is_some_and(|(user, _)| user.contains(':'));
    has_scheme || is_token || has_password
}

/// Replaces the values of baggage members that look like credentials.
fn baggage(value: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(value);
    let members = text.split(',').map(|member| match member.split_once('=') {
        Some((key, value)) if names_credential(key) || is_credential(value.as_bytes()) => format!("{key}={REDACTED}"),
        _ => member.to_owned(),
    });
    members.collect::<Vec<_>>().join(",").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, value: &str) -> String {
        redact(name, value.as_bytes()).map_or(REDACTED.to_owned(), |value| String::from_utf8(value).unwrap())
    }

    #[test]
    fn credentials_are_hidden() {
        for name in [
            "Authorization",
            "proxy-authorization",
            "X-Api-Key",
            "apiKey",
            "db_password",
            "Set-Cookie",
            "x-auth",
            "JWT",
        ] {
            assert_eq!(shown(name, "topsecret"), REDACTED, "{name}");
        }
        for value in ["Bearer topsecret", "basic dG9w", "eyJh.eyJz.c2ln", "amqp://me:topsecret@host/x"] {
            assert_eq!(shown("forwarded", value), REDACTED, "{value}");
        }
        assert_eq!(shown("baggage", "tenant=acme,api_key=topsecret,x=y"), "tenant=acme,api_key=***,x=y");
    }

    #[test]
    fn other_values_are_shown() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (name, value) in [
            ("traceparent", parent),
            ("tenant", "acme"),
            ("author", "Ada"),
            ("callback", "http://host/a@b:c"),
            ("baggage", "tenant=acme"),
        ] {
            assert_eq!(shown(name, value), value, "{name}");
        }
    }
}

//! Headers without what looks like a credential.

/// What stands in the place of a credential.
pub(crate) const HIDDEN: &str = "***";

/// Whatever else a name holds, letters and digits only.
const PARTS: [&str; 11] = [
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

/// Whole words of a name.
const WORDS: [&str; 6] = ["auth", "jwt", "bearer", "sid", "pwd", "session"];

/// How a value may begin.
const LEADS: [&str; 3] = ["bearer ", "basic ", "digest "];

/// The value of a header as it may be shown, as text if it is some; `None` where it looks like a credential.
pub(crate) fn without(name: &str, value: &[u8]) -> Option<Vec<u8>> {
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
    PARTS.iter().any(|part| joined.contains(part)) || words.any(|word| WORDS.contains(&word))
}

/// A scheme of authentication, a JSON web token, or a URL with a password.
fn is_credential(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value).map(str::trim_start) else { return false };
    let led = LEADS.iter().any(|lead| text.get(..lead.len()).is_some_and(|start| start.eq_ignore_ascii_case(lead)));
    let is_token = text.starts_with("eyJ") && text.split('.').count() == 3 && !text.contains(' ');
    let authority = text.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', ' ']).next());
    let has_password =
        authority.and_then(|authority| authority.rsplit_once('@')).is_some_and(|(user, _)| user.contains(':'));
    led || is_token || has_password
}

/// The members that may be shown, and the names of the others.
fn baggage(value: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(value);
    let members = text.split(',').map(|member| match member.split_once('=') {
        Some((key, value)) if names_credential(key) || is_credential(value.as_bytes()) => format!("{key}={HIDDEN}"),
        _ => member.to_owned(),
    });
    members.collect::<Vec<_>>().join(",").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, value: &str) -> String {
        without(name, value.as_bytes()).map_or(HIDDEN.to_owned(), |value| String::from_utf8(value).unwrap())
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
            assert_eq!(shown(name, "topsecret"), HIDDEN, "{name}");
        }
        for value in ["Bearer topsecret", "basic dG9w", "eyJh.eyJz.c2ln", "amqp://me:topsecret@host/x"] {
            assert_eq!(shown("forwarded", value), HIDDEN, "{value}");
        }
        assert_eq!(shown("baggage", "tenant=acme,api_key=topsecret,x=y"), "tenant=acme,api_key=***,x=y");
    }

    #[test]
    fn nothing_else_is() {
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

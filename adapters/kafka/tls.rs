//! TLS and SASL as properties of librdkafka, and what its build has of them: OpenSSL serves both.

use std::path::Path;

use rdkafka::ClientConfig;

use crate::driver::Tls;
use crate::error::{Error, ErrorKind, Result};

const PROTOCOL: &str = "security.protocol";
const USER: &str = "sasl.username";
/// Two names of one property.
const MECHANISM: [&str; 2] = ["sasl.mechanism", "sasl.mechanisms"];

/// Sets the properties of TLS and SASL that are not set yet, and checks the files.
pub(super) fn secure(client: &mut ClientConfig, tls: Option<&Tls>) -> Result<()> {
    let has_user = client.get(USER).is_some();
    let given = client.get(PROTOCOL).map(|_| protocol(client));
    let is_sasl = given.as_ref().map_or(has_user, |given| given.starts_with("sasl"));
    if tls.is_some() {
        client.set(PROTOCOL, if is_sasl { "sasl_ssl" } else { "ssl" });
    } else if is_sasl && given.is_none() {
        client.set(PROTOCOL, "sasl_plaintext");
    }
    if has_user && MECHANISM.iter().all(|name| client.get(name).is_none()) {
        client.set(MECHANISM[0], "PLAIN");
    }
    if let Some(built) = built() {
        check_build(client, &built)?;
    }
    warn_of_unchecked(client);
    tls.map_or(Ok(()), |tls| set_files(client, tls))
}

/// Returns `true` if the password is sent over connections that anyone on the way can read.
pub(super) fn reveals_password(client: &ClientConfig) -> bool {
    protocol(client) == "sasl_plaintext" && client.get(USER).is_some()
}

/// Returns `true` if connections are encrypted.
pub(super) fn is_encrypted(client: &ClientConfig) -> bool {
    protocol(client).ends_with("ssl")
}

/// Returns the protocol in lower case; librdkafka takes it in any.
fn protocol(client: &ClientConfig) -> String {
    client.get(PROTOCOL).unwrap_or("plaintext").to_ascii_lowercase()
}

/// Returns what the build of librdkafka has. An application that depends on rdkafka itself may have
/// switched on more than the features of this crate.
fn built() -> Option<String> {
    ClientConfig::new().create_native_config().and_then(|native| native.get("builtin.features")).ok()
}

/// Checks that the build has what the properties ask for.
fn check_build(client: &ClientConfig, built: &str) -> Result<()> {
    let has = |feature: &str| built.split(',').any(|part| part.trim() == feature);
    let mut mechanisms = MECHANISM.iter().filter_map(|name| client.get(name));
    let is_scram = mechanisms.any(|mechanism| mechanism.to_ascii_uppercase().starts_with("SCRAM"));
    let lacks = match () {
        () if is_encrypted(client) && !has("ssl") => "TLS to Kafka",
        () if is_scram && !has("sasl_scram") => "SCRAM for Kafka",
        () => return Ok(()),
    };
    let message = format!("this build has no {lacks}: add `features = [\"kafka-tls\"]` to traced-broker in Cargo.toml");
    Err(Error::new(ErrorKind::FeatureDisabled, message))
}

/// Warns of properties that switch the checks of the broker's certificate off.
fn warn_of_unchecked(client: &ClientConfig) {
    for (name, safe) in
        [("enable.ssl.certificate.verification", "true"), ("ssl.endpoint.identification.algorithm", "https")]
    {
        if is_encrypted(client) && client.get(name).is_some_and(|value| !value.eq_ignore_ascii_case(safe)) {
            tracing::warn!(property = name, "kafka: the certificate of the broker is not checked");
        }
    }
}

/// Has librdkafka read the files, or passes the texts on.
fn set_files(client: &mut ClientConfig, tls: &Tls) -> Result<()> {
    if tls.expected_name().is_some() {
        let message = "tls_server_name cannot be set for kafka: librdkafka checks the name of each host that it \
                       connects to, so the certificates have to be for those";
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    if let Some(text) = tls.read_authorities()? {
        set_file(client, ("tls_ca", "ssl.ca"), tls.authorities_path(), text)?;
    }
    if let Some((certificate, key)) = tls.read_identity()? {
        let (certificate_path, key_path) = tls.identity_paths().unzip();
        set_file(client, ("tls_cert", "ssl.certificate"), certificate_path, certificate)?;
        set_file(client, ("tls_key", "ssl.key"), key_path, key)?;
    }
    Ok(())
}

fn set_file(
    client: &mut ClientConfig,
    (option, property): (&'static str, &str),
    path: Option<&Path>,
    text: Vec<u8>,
) -> Result<()> {
    let (location, pem) = (format!("{property}.location"), format!("{property}.pem"));
    // librdkafka would use both.
    client.remove(&location);
    client.remove(&pem);
    if let Some(path) = path {
        // The name `probe` alone means the system's authorities.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        client.set(location, path.to_string_lossy());
        return Ok(());
    }
    let text = String::from_utf8(text).ok().filter(|text| !text.contains('\0'));
    let message = "the PEM text is not a text";
    let text = text.ok_or_else(|| Error::new(ErrorKind::InvalidConfig, message).with_context("option", option))?;
    client.set(pem, text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(properties: &[(&str, &str)]) -> ClientConfig {
        properties.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn no_property_takes_tls_away() {
        for (set, expected) in [
            (&[][..], "ssl"),
            (&[(PROTOCOL, "plaintext")], "ssl"),
            (&[(PROTOCOL, "SASL_PLAINTEXT")], "sasl_ssl"),
            (&[(USER, "app")], "sasl_ssl"),
        ] {
            let mut client = client(set);
            secure(&mut client, Some(&Tls::new())).unwrap();
            assert_eq!(protocol(&client), expected, "{set:?}");
            assert!(!reveals_password(&client));
        }
    }

    #[test]
    fn passwords_are_revealed_without_tls_only() {
        for (set, reveals) in [
            (&[(USER, "app")][..], true),
            (&[(USER, "app"), (PROTOCOL, "SASL_PLAINTEXT")], true),
            (&[(USER, "app"), (PROTOCOL, "SASL_SSL")], false),
            (&[], false),
        ] {
            let mut client = client(set);
            secure(&mut client, None).unwrap();
            assert_eq!(reveals_password(&client), reveals, "{set:?}");
        }
    }

    #[test]
    fn what_the_build_lacks_is_named_with_its_feature() {
        for set in [&[(PROTOCOL, "SSL")][..], &[("sasl.mechanism", "SCRAM-SHA-256")]] {
            let client = client(set);
            let error = check_build(&client, "gzip,snappy,sasl,sasl_plain").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FeatureDisabled);
            assert!(error.to_string().contains("kafka-tls"), "{error}");
            check_build(&client, "gzip,ssl,sasl_scram").unwrap();
        }
        check_build(&client(&[("sasl.mechanism", "PLAIN")]), "sasl_plain").unwrap();
    }
}

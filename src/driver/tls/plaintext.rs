//! Passwords and tokens on connections that are not encrypted.

use std::net::IpAddr;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Permission to send passwords and tokens over connections that anyone on the way can read: the
/// URL option `plaintext`, `yes` or `no`.
///
/// Connections to this machine need none. Credentials that prove a secret without sending it, such
/// as keys of NATS, need none either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plaintext {
    /// They are refused: `plaintext=no`.
    #[default]
    Refused,
    /// They are sent: `plaintext=yes`.
    Allowed,
}

impl Plaintext {
    /// Checks that a secret may be sent to these hosts without TLS.
    ///
    /// ```
    /// use traced_broker::driver::Plaintext;
    ///
    /// let host = |name: &str| [(name.to_owned(), 5672)];
    /// assert!(Plaintext::Refused.check(&host("127.0.0.1")).is_ok());
    /// assert!(Plaintext::Refused.check(&host("mq.example")).is_err());
    /// assert!(Plaintext::Allowed.check(&host("mq.example")).is_ok());
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] with the first host that is not this machine.
    pub fn check(self, hosts: &[(String, u16)]) -> Result<()> {
        let remote = hosts.iter().find(|(host, _)| !is_loopback(host));
        match (self, remote) {
            (Self::Refused, Some((host, port))) => {
                let message = "the password would be sent unencrypted: use the URL's scheme with TLS, \
                               or allow it with the option plaintext=yes";
                Err(Error::new(ErrorKind::InvalidConfig, message).with_context("server", format_args!("{host}:{port}")))
            }
            _ => Ok(()),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let is_name = || host == "localhost" || host.ends_with(".localhost");
    host.parse::<IpAddr>().map_or_else(|_| is_name(), |address| address.is_loopback())
}

impl FromStr for Plaintext {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "yes" => Ok(Self::Allowed),
            "no" => Ok(Self::Refused),
            _ => Err(Error::new(ErrorKind::InvalidConfig, "the option plaintext is yes or no")),
        }
    }
}

//! The URLs of brokers: scheme, credentials, one or several hosts, a path and options.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind, Result};

/// A parsed broker URL:
/// `scheme://[user[:password]@]host[:port][,host[:port]…][/path][?option=value&…]`.
///
/// Special characters are percent-encoded: `/`, `?`, `#` and `@` in credentials, and `@` in the
/// path and in the names of options. Scheme and credentials may stand before each host, as in
/// `nats://app:pw@n1,nats://app:pw@n2`; the credentials are then the same for all.
///
/// Neither `Debug` nor any error prints the password, or a user without one, which may be a token.
///
/// ```
/// use traced_broker::BrokerUrl;
///
/// let url = BrokerUrl::parse("kafka://app:s3cret@k1:9092,k2/?topology=check").unwrap();
/// assert_eq!(url.hosts(9092), [("k1".to_string(), 9092), ("k2".to_string(), 9092)]);
/// assert!(!format!("{url:?}").contains("s3cret"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    scheme: String,
    username: Option<String>,
    password: Option<Secret>,
    hosts: Vec<(String, Option<u16>)>,
    path: String,
    options: Vec<(String, String)>,
}

impl BrokerUrl {
    /// Parses a URL.
    ///
    /// ```
    /// # fn main() -> traced_broker::Result<()> {
    /// use traced_broker::{BrokerUrl, ErrorKind};
    ///
    /// let url = BrokerUrl::parse("amqp://app:p%40ss@mq.example/shop?heartbeat=10")?;
    /// assert_eq!((url.scheme(), url.username(), url.path()), ("amqp", Some("app"), "shop"));
    /// assert_eq!(url.password().expect("a password").expose(), "p@ss");
    ///
    /// for wrong in ["mq.example", "amqp://app:s3cret@mq.example:99999", "nats://two hosts"] {
    ///     let error = BrokerUrl::parse(wrong).unwrap_err();
    ///     assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    ///     assert!(!error.to_string().contains("s3cret"));
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] with the part that is wrong. The error never repeats
    /// credentials.
    pub fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("a broker URL has the form scheme://host"))?;
        if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
            return Err(invalid("the scheme of the broker URL is not a word"));
        }
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let rest = &rest.replace(&format!(",{scheme}://"), ",");
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // Otherwise a part of such a password would be read as a host or option, and be shown.
        if [path, fragment].into_iter().chain(option_names(query)).any(|part| part.contains('@')) {
            return Err(invalid(
                "an @ follows the hosts of the broker URL: percent-encode it, and / ? # in a password",
            ));
        }
        let (credentials, hosts) = split_authority(authority)?;
        let (username, password) = match credentials.map(|pair| pair.split_once(':').unwrap_or((pair, ""))) {
            Some((user, password)) => {
                (Some(decode(user)?), (!password.is_empty()).then(|| decode(password)).transpose()?)
            }
            None => (None, None),
        };
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            username,
            password: password.map(Secret::new),
            hosts: hosts.into_iter().filter(|host| !host.is_empty()).map(parse_host).collect::<Result<_>>()?,
            path: decode(path)?,
            options: parse_query(query)?,
        })
    }

    /// Returns the scheme in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns the user name, if there is one.
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// Returns the password, if there is one.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// Returns the hosts in order, each with its port or `default_port`; `localhost` if the URL
    /// names no host.
    pub fn hosts(&self, default_port: u16) -> Vec<(String, u16)> {
        if self.hosts.is_empty() {
            return vec![("localhost".to_owned(), default_port)];
        }
        self.hosts.iter().map(|(host, port)| (host.clone(), port.unwrap_or(default_port))).collect()
    }

    /// Returns the first host as written, if the URL names one; the name of a `memory://name`
    /// broker.
    pub fn name(&self) -> Option<&str> {
        self.hosts.first().map(|(host, _)| host.as_str())
    }

    /// Returns the decoded path: the text after the first `/` that follows the hosts.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the options, to be taken one by one.
    pub fn options(&self) -> UrlOptions {
        UrlOptions { remaining: self.options.clone(), known: Vec::new() }
    }
}

impl FromStr for BrokerUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::parse(url)
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Option values may be secrets too, so only the names are shown.
        let options: Vec<&str> = self.options.iter().map(|(name, _)| name.as_str()).collect();
        let username = self.username.as_deref().map(|name| if self.password.is_some() { name } else { "[redacted]" });
        f.debug_struct("BrokerUrl")
            .field("scheme", &self.scheme)
            .field("username", &username)
            .field("password", &self.password)
            .field("hosts", &self.hosts)
            .field("path", &self.path)
            .field("options", &options)
            .finish()
    }
}

/// The options of a URL. An adapter takes the ones it knows; [`finish`](Self::finish) rejects the
/// rest.
///
/// ```
/// # fn main() -> traced_broker::Result<()> {
/// use traced_broker::{BrokerUrl, ErrorKind, Topology};
///
/// let url: BrokerUrl = "files:///var/queue?topology=check&sink=yes".parse()?;
/// let mut options = url.options();
/// assert_eq!(options.take::<Topology>("topology")?, Some(Topology::Check));
/// assert_eq!(options.take::<bool>("sync")?, None);
/// let error = options.finish().unwrap_err();
/// assert!(error.to_string().ends_with("(option=sink, valid=topology sync)"));
///
/// let url: BrokerUrl = "files:///var/queue?sync=yes".parse()?;
/// let error = url.options().take::<bool>("sync").unwrap_err(); // neither true nor false
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct UrlOptions {
    remaining: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl UrlOptions {
    /// Takes the option of that name and parses its value; `None` if it is absent.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the option is given twice or its value cannot be parsed.
    pub fn take<T: FromStr>(&mut self, name: &'static str) -> Result<Option<T>> {
        self.known.push(name);
        let Some(index) = self.remaining.iter().position(|(given, _)| given == name) else {
            return Ok(None);
        };
        let (_, value) = self.remaining.swap_remove(index);
        if self.remaining.iter().any(|(given, _)| given == name) {
            return Err(invalid("an option of the broker URL is given twice").with_context("option", name));
        }
        match value.parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => {
                Err(invalid("the value of an option of the broker URL is not valid").with_context("option", name))
            }
        }
    }

    /// Rejects options that were not taken.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] with the unknown option and the valid ones.
    pub fn finish(self) -> Result<()> {
        let Some((unknown, _)) = self.remaining.first() else {
            return Ok(());
        };
        Err(invalid("the broker URL has an unknown option")
            .with_context("option", unknown)
            .with_context("valid", self.known.join(" ")))
    }
}

impl fmt::Debug for UrlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.remaining.iter().map(|(name, _)| name)).finish()
    }
}

/// A text that is never printed, such as a password.
///
/// ```
/// use traced_broker::Secret;
///
/// let password = Secret::new("s3cret");
/// assert_eq!(format!("{password:?}"), "[redacted]");
/// assert_eq!(password.expose(), "s3cret");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Creates a secret from the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text itself, to pass it to a client.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The treatment of missing topics, queues, streams and groups.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::{ErrorKind, Message, TracedBroker, connect};
///
/// let broker = connect("memory://?topology=check").await?;
/// let error = broker.publish("orders", Message::new("shoes")).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound); // the topic is not created
///
/// let error = connect("memory://?topology=never").await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Topology {
    /// Create them; the URL option `topology=create`.
    #[default]
    Create,
    /// Only check that they exist; the URL option `topology=check`.
    Check,
}

impl FromStr for Topology {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "create" => Ok(Self::Create),
            "check" => Ok(Self::Check),
            _ => Err(invalid("the option topology is create or check")),
        }
    }
}

/// Splits credentials from hosts. They stand before the first host, or before each one.
fn split_authority(authority: &str) -> Result<(Option<&str>, Vec<&str>)> {
    let first = if authority.contains(',') { authority.split_once('@') } else { authority.rsplit_once('@') };
    let Some((credentials, hosts)) = first else {
        return Ok((None, authority.split(',').collect()));
    };
    let mut split = Vec::new();
    for host in hosts.split(',') {
        // No part is repeated: it may be one of a password.
        let message = "the hosts of the broker URL have different credentials, or there is an @ in them: \
                       give the same before each host or only before the first, and percent-encode @ and ,";
        split.push(match host.rsplit_once('@') {
            None => host,
            Some((again, host)) if again == credentials => host,
            Some(_) => return Err(invalid(message)),
        });
    }
    Ok((Some(credentials), split))
}

fn parse_host(host: &str) -> Result<(String, Option<u16>)> {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => (address, None),
        Some((address, rest)) => (address, Some(rest.strip_prefix(':').ok_or_else(|| invalid(NO_PORT))?)),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let name = decode(name)?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(invalid("a host of the broker URL is empty or holds white space"));
    }
    let port = port.map(str::parse).transpose().map_err(|_| invalid(NO_PORT))?;
    Ok((name, port))
}

const NO_PORT: &str = "a port of the broker URL is not a number up to 65535";

fn parse_query(query: &str) -> Result<Vec<(String, String)>> {
    pairs(query).map(|(name, value)| Ok((decode(name)?, decode(value)?))).collect()
}

fn option_names(query: &str) -> impl Iterator<Item = &str> {
    pairs(query).map(|(name, _)| name)
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn decode(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| invalid("a percent-encoded part of the broker URL is not UTF-8"))
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

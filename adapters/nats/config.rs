//! Configuration of a connection: the options of the URL and of the builder.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::driver::{BrokerUrl, Plaintext, Secret, SecretSource, Tls, Topology, UrlOptions};
use crate::error::{Error, ErrorKind, Result};

use super::headers::header_names::HeaderNames;

const DEFAULT_PORT: u16 = 4222;
/// The scheme of other clients' URLs for connections with TLS.
pub(super) const TLS_SCHEME: &str = "tls";

/// The kind of messaging: JetStream or core NATS; the URL option `mode`.
///
/// ```
/// use traced_broker::ErrorKind;
/// use traced_broker::adapters::nats::Mode;
///
/// assert_eq!("core".parse::<Mode>()?, Mode::Core);
/// assert_eq!(Mode::default(), Mode::JetStream);
/// assert_eq!("stream".parse::<Mode>().unwrap_err().kind(), ErrorKind::InvalidConfig);
/// # Ok::<(), traced_broker::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Messages are stored in streams and confirmed; `mode=jetstream`.
    #[default]
    JetStream,
    /// Messages go to the subscribers of the moment, and are not confirmed; `mode=core`.
    Core,
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "jetstream" => Ok(Self::JetStream),
            "core" => Ok(Self::Core),
            _ => Err(invalid("the option mode is jetstream or core")),
        }
    }
}

/// The moment from which a settled delivery counts as settled; the URL option `ack`.
///
/// ```
/// use traced_broker::ErrorKind;
/// use traced_broker::adapters::nats::Acknowledge;
///
/// assert_eq!("confirm".parse::<Acknowledge>()?, Acknowledge::Confirm);
/// assert_eq!(Acknowledge::default(), Acknowledge::Send);
/// assert_eq!("never".parse::<Acknowledge>().unwrap_err().kind(), ErrorKind::InvalidConfig);
/// # Ok::<(), traced_broker::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acknowledge {
    /// The settlement is on its way to the server; `ack=send`. If the connection is lost at that
    /// moment, the message is redelivered.
    #[default]
    Send,
    /// The server has answered; `ack=confirm`. Costs one more small message for each delivery.
    Confirm,
}

impl FromStr for Acknowledge {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "send" => Ok(Self::Send),
            "confirm" => Ok(Self::Confirm),
            _ => Err(invalid("the option ack is send or confirm")),
        }
    }
}

/// The place where streams that are created keep their messages; the URL option `storage`.
///
/// ```
/// use traced_broker::ErrorKind;
/// use traced_broker::adapters::nats::Storage;
///
/// assert_eq!("memory".parse::<Storage>()?, Storage::Memory);
/// assert_eq!(Storage::default(), Storage::File);
/// assert_eq!("disk".parse::<Storage>().unwrap_err().kind(), ErrorKind::InvalidConfig);
/// # Ok::<(), traced_broker::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// Files, which survive a server; `storage=file`.
    #[default]
    File,
    /// The memory of the server, or of its replicas; `storage=memory`.
    Memory,
}

impl Storage {
    /// Returns the server's word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Memory => "memory",
        }
    }
}

impl FromStr for Storage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "file" => Ok(Self::File),
            "memory" => Ok(Self::Memory),
            _ => Err(invalid("the option storage is file or memory")),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) hosts: Vec<(String, u16)>,
    pub(super) credentials: Credentials,
    /// The first tokens of the subjects for answers; the client's if it is absent.
    pub(super) inbox_prefix: Option<String>,
    pub(super) encryption: Encryption,
    pub(super) mode: Mode,
    pub(super) topology: Topology,
    pub(super) acknowledge: Acknowledge,
    pub(super) ack_wait: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) confirm_timeout: Duration,
    pub(super) election_wait: Duration,
    pub(super) replicas: usize,
    pub(super) limits: Limits,
    pub(super) header_names: HeaderNames,
    /// Level of the server's JetStream API, from [`api::level`](super::connection::api::level); 0
    /// until it is known.
    pub(super) level: u64,
}

/// The credentials of the connection. Each setter replaces those of the others.
#[derive(Debug, Clone, Default)]
pub(super) enum Credentials {
    #[default]
    None,
    User(String, SecretSource),
    Token(SecretSource),
    Nkey(Secret),
    File(PathBuf),
}

/// The limits of streams that are created, as the server names them. Those that are absent are the
/// server's.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits {
    pub(super) max_age: Duration,
    pub(super) max_bytes: Option<i64>,
    pub(super) max_msgs: Option<i64>,
    pub(super) duplicate_window: Option<Duration>,
    pub(super) storage: Storage,
}

/// The use of TLS.
#[derive(Debug, Clone, Default)]
pub(super) struct Encryption {
    /// `false` leaves it to the server.
    pub(super) required: bool,
    pub(super) tls: Option<Tls>,
    pub(super) plaintext: Plaintext,
}

impl Config {
    pub(super) fn read(url: &BrokerUrl) -> Result<Self> {
        if !url.path().is_empty() {
            return Err(invalid("a NATS URL has no path: nats://host:port?option=value"));
        }
        let mut options = url.options();
        let config = Self {
            hosts: url.hosts(DEFAULT_PORT),
            credentials: Credentials::read(url, &mut options)?,
            inbox_prefix: options.take("inbox_prefix")?,
            encryption: Encryption::read(url, &mut options)?,
            mode: options.take("mode")?.unwrap_or_default(),
            topology: options.take("topology")?.unwrap_or_default(),
            acknowledge: options.take("ack")?.unwrap_or_default(),
            ack_wait: milliseconds(&mut options, "ack_wait", 10_000)?,
            connect_timeout: milliseconds(&mut options, "connect_timeout", 10_000)?,
            confirm_timeout: milliseconds(&mut options, "confirm_timeout", 10_000)?,
            election_wait: milliseconds(&mut options, "election_wait", 10_000)?,
            replicas: options.take("replicas")?.unwrap_or(1),
            limits: Limits::read(&mut options)?,
            header_names: options.take("header_names")?.unwrap_or_default(),
            level: 0,
        };
        options.finish()?;
        Ok(config)
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.ack_wait < Duration::from_millis(100) {
            return Err(invalid("the option ack_wait is at least 100 milliseconds"));
        }
        if self.connect_timeout.is_zero() || self.confirm_timeout.is_zero() {
            return Err(invalid("a time-out is at least 1 millisecond"));
        }
        let is_token = |token: &str| !token.is_empty() && !token.contains(['*', '>']);
        let is_prefix = |prefix: &String| prefix.split('.').all(is_token) && !prefix.contains(char::is_whitespace);
        if !self.inbox_prefix.as_ref().is_none_or(is_prefix) {
            return Err(invalid("the option inbox_prefix is a subject without wildcards, such as _INBOX_orders"));
        }
        self.limits.check()?;
        if !(1..=5).contains(&self.replicas) {
            return Err(invalid("the option replicas is 1 to 5"));
        }
        Ok(())
    }

    /// Returns `true` if a connection without TLS is refused, also because a password or token
    /// would be sent over it to another machine.
    pub(super) fn requires_tls(&self) -> bool {
        let sends_secret = matches!(self.credentials, Credentials::User(..) | Credentials::Token(_));
        self.encryption.required || (sends_secret && self.encryption.plaintext.check(&self.hosts).is_err())
    }

    /// Returns the maximum time for one server: one that says nothing leaves time for the others.
    pub(super) fn patience_with_one(&self) -> Duration {
        match u32::try_from(self.hosts.len()) {
            Ok(hosts @ 2..) => self.connect_timeout / (hosts + 1),
            _ => self.connect_timeout,
        }
    }

    /// Returns the server that the client is connected to, among those of the URL: the one with the
    /// address that the server gives, or else the only one with its port, or else the first.
    pub(super) fn connected_host(&self, host: &str, port: u16) -> Option<&(String, u16)> {
        let exact = self.hosts.iter().find(|known| known.0 == host && known.1 == port);
        let mut of_port = self.hosts.iter().filter(|known| known.1 == port);
        let only = of_port.next().filter(|_| of_port.next().is_none());
        exact.or(only).or_else(|| self.hosts.first())
    }

    /// Returns the servers as `host:port,…`, for error messages.
    pub(super) fn shown_hosts(&self) -> String {
        self.addresses().join(",")
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        let address = |(host, port): &(String, u16)| {
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        };
        self.hosts.iter().map(address).collect()
    }
}

impl Credentials {
    /// Reads the credentials of the URL. A user without a password is a token, as is usual with
    /// NATS.
    fn read(url: &BrokerUrl, options: &mut UrlOptions) -> Result<Self> {
        let token_file = options.take::<PathBuf>("token_file")?.map(SecretSource::file);
        let password_file = options.take::<PathBuf>("password_file")?.map(SecretSource::file);
        let password = url.password().cloned().map(SecretSource::from);
        let user = url.username().map(str::to_owned);
        match (user, password, password_file, token_file) {
            (Some(user), Some(password), None, None) | (Some(user), None, Some(password), None) => {
                Ok(Self::User(user, password))
            }
            (Some(token), None, None, None) => Ok(Self::Token(Secret::new(token).into())),
            (None, _, None, Some(token)) => Ok(Self::Token(token)),
            (None, _, None, None) => Ok(Self::None),
            (None, _, Some(_), _) => Err(invalid("the option password_file needs a user in the URL: nats://user@host")),
            _ => Err(invalid("the URL has two credentials: use one of a password, password_file, and token_file")),
        }
    }
}

impl Limits {
    fn read(options: &mut UrlOptions) -> Result<Self> {
        let window = options.take("duplicate_window")?.map(Duration::from_millis);
        Ok(Self {
            max_age: milliseconds(options, "max_age", 0)?,
            max_bytes: options.take("max_bytes")?,
            max_msgs: options.take("max_msgs")?,
            duplicate_window: window,
            storage: options.take("storage")?.unwrap_or_default(),
        })
    }

    fn check(&self) -> Result<()> {
        if [self.max_bytes, self.max_msgs].into_iter().flatten().any(|limit| limit < 1) {
            return Err(invalid("the options max_bytes and max_msgs are at least 1"));
        }
        let window = self.duplicate_window.unwrap_or_default();
        if window > self.max_age && !self.max_age.is_zero() {
            return Err(invalid("the option duplicate_window is not longer than max_age"));
        }
        Ok(())
    }
}

impl Encryption {
    /// Reads the options. Settings of TLS are not for a connection without it.
    fn read(url: &BrokerUrl, options: &mut UrlOptions) -> Result<Self> {
        let is_asked_for = options.take("tls")?.unwrap_or_default() || url.scheme() == TLS_SCHEME;
        let tls = Tls::take(options)?;
        let plaintext = options.take("plaintext")?.unwrap_or_default();
        Ok(Self { required: is_asked_for || tls.is_some(), tls, plaintext })
    }
}

fn milliseconds(options: &mut UrlOptions, name: &'static str, default: u64) -> Result<Duration> {
    Ok(Duration::from_millis(options.take(name)?.unwrap_or(default)))
}

pub(super) fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

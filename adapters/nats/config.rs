//! Configuration of a connection: the options of the URL and of the builder.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::driver::{BrokerUrl, Secret, Topology, UrlOptions};
use crate::error::{Error, ErrorKind, Result};

use super::Nats;
use super::headers::header_names::HeaderNames;

const DEFAULT_PORT: u16 = 4222;
/// The scheme of other clients' URLs for connections with TLS.
const TLS_SCHEME: &str = "tls";

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

#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) hosts: Vec<(String, u16)>,
    pub(super) credentials: Credentials,
    pub(super) tls: Tls,
    pub(super) mode: Mode,
    pub(super) topology: Topology,
    pub(super) acknowledge: Acknowledge,
    pub(super) ack_wait: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) confirm_timeout: Duration,
    pub(super) replicas: usize,
    pub(super) max_age: Duration,
    pub(super) header_names: HeaderNames,
    /// Level of the server's JetStream API, from [`api::level`](super::connection::api::level); 0
    /// until it is known.
    pub(super) level: u64,
}

/// The credentials of the connection. At most one field is set: each setter replaces the others.
#[derive(Debug, Clone, Default)]
pub(super) struct Credentials {
    pub(super) user: Option<(String, Secret)>,
    pub(super) token: Option<Secret>,
    pub(super) nkey: Option<Secret>,
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Tls {
    pub(super) required: bool,
    pub(super) authorities: Option<PathBuf>,
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

impl Config {
    pub(super) fn read(url: &BrokerUrl) -> Result<Self> {
        if !url.path().is_empty() {
            return Err(invalid("a NATS URL has no path: nats://host:port?option=value"));
        }
        let mut options = url.options();
        let config = Self {
            hosts: url.hosts(DEFAULT_PORT),
            credentials: Credentials::read(url),
            tls: Tls::read(url, &mut options)?,
            mode: options.take("mode")?.unwrap_or_default(),
            topology: options.take("topology")?.unwrap_or_default(),
            acknowledge: options.take("ack")?.unwrap_or_default(),
            ack_wait: milliseconds(&mut options, "ack_wait", 10_000)?,
            connect_timeout: milliseconds(&mut options, "connect_timeout", 10_000)?,
            confirm_timeout: milliseconds(&mut options, "confirm_timeout", 10_000)?,
            replicas: options.take("replicas")?.unwrap_or(1),
            max_age: milliseconds(&mut options, "max_age", 0)?,
            header_names: options.take("header_names")?.unwrap_or_default(),
            level: 0,
        };
        options.finish()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        if self.ack_wait < Duration::from_millis(100) {
            return Err(invalid("the option ack_wait is at least 100 milliseconds"));
        }
        if self.connect_timeout.is_zero() || self.confirm_timeout.is_zero() {
            return Err(invalid("a time-out is at least 1 millisecond"));
        }
        if !(1..=5).contains(&self.replicas) {
            return Err(invalid("the option replicas is 1 to 5"));
        }
        Ok(())
    }

    /// Returns the maximum time for one server: one that says nothing leaves time for the others.
    pub(super) fn patience_with_one(&self) -> Duration {
        match u32::try_from(self.hosts.len()) {
            Ok(hosts @ 2..) => self.connect_timeout / (hosts + 1),
            _ => self.connect_timeout,
        }
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
    fn read(url: &BrokerUrl) -> Self {
        match (url.username(), url.password()) {
            (Some(user), Some(password)) => Self { user: Some((user.to_owned(), password.clone())), ..Self::default() },
            (Some(token), None) => Self { token: Some(Secret::new(token)), ..Self::default() },
            (None, _) => Self::default(),
        }
    }
}

impl Tls {
    /// Reads the options. Who names authorities does not want a connection that they do not vouch
    /// for.
    fn read(url: &BrokerUrl, options: &mut UrlOptions) -> Result<Self> {
        let (required, authorities) = (options.take("tls")?.unwrap_or_default(), options.take::<PathBuf>("tls_ca")?);
        Ok(Self {
            required: required || authorities.is_some() || url.scheme() == TLS_SCHEME,
            authorities,
            identity: None,
        })
    }
}

fn milliseconds(options: &mut UrlOptions, name: &'static str, default: u64) -> Result<Duration> {
    Ok(Duration::from_millis(options.take(name)?.unwrap_or(default)))
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

/// A builder of a [`Nats`] connection with all its options. Setters never fail;
/// [`connect`](Self::connect) does.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::{Traced, adapters::nats::Nats};
///
/// let nats = Nats::builder("nats://n1,n2,n3")
///     .credentials_file("/run/secrets/orders.creds")
///     .replicas(3)
///     .max_age(Duration::from_secs(7 * 86_400))
///     .connect()
///     .await?;
/// let broker = Traced::new(nats);
/// # Ok(()) }
/// ```
///
/// Options are checked before any connection is made:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use traced_broker::{ErrorKind, adapters::nats::Nats};
///
/// let error = Nats::builder("nats://localhost").replicas(6).connect().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until connect"]
pub struct NatsBuilder {
    config: Result<Config>,
}

impl NatsBuilder {
    pub(super) fn new(url: &str) -> Self {
        let read = |url: BrokerUrl| match url.scheme() {
            "nats" | TLS_SCHEME => Config::read(&url),
            _ => Err(invalid("the scheme of a NATS URL is nats://, or tls:// to require TLS")),
        };
        Self { config: BrokerUrl::parse(url).and_then(read) }
    }

    pub(super) fn from_url(url: &BrokerUrl) -> Self {
        Self { config: Config::read(url) }
    }

    /// Sets the kind of messaging: JetStream, the default, or core NATS.
    pub fn mode(self, mode: Mode) -> Self {
        self.with(|config| config.mode = mode)
    }

    /// Sets whether missing streams and consumers are created, the default, or only checked.
    pub fn topology(self, topology: Topology) -> Self {
        self.with(|config| config.topology = topology)
    }

    /// Sets the moment from which a settled delivery counts as settled. Default
    /// [`Acknowledge::Send`].
    pub fn acknowledge(self, acknowledge: Acknowledge) -> Self {
        self.with(|config| config.acknowledge = acknowledge)
    }

    /// Sets the time after which the server redelivers what a consumer that vanished left
    /// unsettled, at least 100 ms; default 10 s.
    ///
    /// It does not limit handlers: while this process lives, it asks for more time. Applies to
    /// groups and readers that are created; existing ones keep theirs.
    pub fn ack_wait(self, wait: Duration) -> Self {
        self.with(|config| config.ack_wait = wait)
    }

    /// Sets the maximum duration of connecting, all servers together; default 10 s.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.connect_timeout = timeout)
    }

    /// Sets the maximum time for the server's answer to a publish or request; default 10 s. After
    /// that, the outcome is unknown.
    pub fn confirm_timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.confirm_timeout = timeout)
    }

    /// Sets the number of servers of a cluster that keep a stream that is created, 1 to 5; default
    /// 1.
    pub fn replicas(self, replicas: usize) -> Self {
        self.with(|config| config.replicas = replicas)
    }

    /// Sets the time for which a stream that is created keeps messages; default zero, which means
    /// forever.
    pub fn max_age(self, age: Duration) -> Self {
        self.with(|config| config.max_age = age)
    }

    /// Sets the spelling of header names; default [`HeaderNames::Exact`].
    pub fn header_names(self, names: HeaderNames) -> Self {
        self.with(|config| config.header_names = names)
    }

    /// Authenticates by user and password.
    pub fn user(self, user: impl Into<String>, password: Secret) -> Self {
        self.with(|config| {
            config.credentials = Credentials { user: Some((user.into(), password)), ..Default::default() }
        })
    }

    /// Authenticates by token.
    pub fn token(self, token: Secret) -> Self {
        self.with(|config| config.credentials = Credentials { token: Some(token), ..Default::default() })
    }

    /// Authenticates by the seed of an nkey, `SU…`.
    pub fn nkey(self, seed: Secret) -> Self {
        self.with(|config| config.credentials = Credentials { nkey: Some(seed), ..Default::default() })
    }

    /// Authenticates by the JWT and seed in a `.creds` file.
    pub fn credentials_file(self, path: impl AsRef<Path>) -> Self {
        let file = Some(path.as_ref().to_owned());
        self.with(|config| config.credentials = Credentials { file, ..Default::default() })
    }

    /// Sets whether connections without TLS are refused; default `false`, which uses TLS if the
    /// server asks for it.
    pub fn tls(self, required: bool) -> Self {
        self.with(|config| config.tls.required = required)
    }

    /// Trusts the certificate authorities in this PEM file, and requires TLS.
    pub fn certificate_authorities(self, path: impl AsRef<Path>) -> Self {
        self.with(|config| {
            config.tls = Tls { required: true, authorities: Some(path.as_ref().to_owned()), ..config.tls.clone() };
        })
    }

    /// Presents this certificate with its key, both PEM files, and requires TLS.
    pub fn client_certificate(self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        let identity = Some((certificate.as_ref().to_owned(), key.as_ref().to_owned()));
        self.with(|config| config.tls = Tls { required: true, identity, ..config.tls.clone() })
    }

    /// Connects to the servers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the URL or an option is not valid;
    /// [`ErrorKind::Unavailable`] if no server answers in time; [`ErrorKind::Unauthenticated`] if
    /// the server refuses the credentials; [`ErrorKind::Unsupported`] if it has no JetStream and
    /// [`Mode::Core`] is not set.
    pub async fn connect(self) -> Result<Nats> {
        Nats::open(self.checked()?).await
    }

    pub(super) fn checked(self) -> Result<Config> {
        let config = self.config?;
        config.check()?;
        Ok(config)
    }

    fn with(mut self, set: impl FnOnce(&mut Config)) -> Self {
        if let Ok(config) = &mut self.config {
            set(config);
        }
        self
    }
}

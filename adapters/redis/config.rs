//! Configuration of a connection: from the URL, the builder, or the user's own client.

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ::redis::io::tcp::socket2::TcpKeepalive;
use ::redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::driver::{BrokerUrl, Plaintext, Secret, Tls, TlsConnector, Topology};
use crate::error::{Error, ErrorKind, Result};

use super::error::SYSTEM;
use super::transport::Opener;
use crate::adapters::redis::{DEFAULT_PORT, Redis};

/// The scheme of a URL for connections with TLS.
pub(super) const TLS_SCHEME: &str = "rediss";

/// Default of `connect_timeout`: maximum duration of connecting.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Default of `response_timeout`: maximum time for the server's answer to a command.
pub const DEFAULT_RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Default of `claim_idle`: maximum silence of a member of a group about a message before other
/// members take it over.
pub const DEFAULT_CLAIM_IDLE: Duration = Duration::from_secs(20);

/// Default of `wait_timeout`: maximum time for the replicas to have a message.
pub const DEFAULT_WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest `claim_idle`; with less, a busy machine could not renew in time.
pub const MIN_CLAIM_IDLE: Duration = Duration::from_millis(100);

/// Maximum silence on a connection, after which it is kept alive by a `PING`. Servers and proxies
/// that close silent connections allow for more.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// Silence after which the operating system asks whether the other side of a socket still exists,
/// and the time between its questions. It asks five times.
const PROBE_AFTER: Duration = Duration::from_secs(5);
const PROBE_EVERY: Duration = Duration::from_secs(1);
const PROBES: u32 = 5;

/// Maximum time for which the other side of a socket acknowledges nothing that was sent.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Time for which messages stay in a stream although every group has handled them: for readers
/// without a group, and for groups that are new or moved back.
pub const HANDLED_FOR: Duration = Duration::from_secs(60);

/// The streams from which messages are removed that every group has handled.
///
/// ```
/// use traced_broker::ErrorKind;
/// use traced_broker::adapters::redis::Retention;
///
/// assert_eq!("handled".parse::<Retention>().unwrap(), Retention::Handled);
/// assert_eq!("some".parse::<Retention>().unwrap_err().kind(), ErrorKind::InvalidConfig);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retention {
    /// Those that this library has created; the URL option `retention=created`.
    #[default]
    Created,
    /// All of them; the URL option `retention=handled`.
    Handled,
    /// None: messages stay in the stream; the URL option `retention=all`.
    All,
}

impl Retention {
    /// Returns `true` if any stream is trimmed, `false` for those that were created here, and
    /// `None` for none.
    pub(super) fn trims_any(self) -> Option<bool> {
        match self {
            Self::Created => Some(false),
            Self::Handled => Some(true),
            Self::All => None,
        }
    }
}

impl FromStr for Retention {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "created" => Ok(Self::Created),
            "handled" => Ok(Self::Handled),
            "all" => Ok(Self::All),
            _ => Err(invalid("the option retention is created, handled or all")),
        }
    }
}

/// Number of times in one `claim_idle` that a member renews its entries and looks for those that
/// other members left.
pub(super) const ROUNDS: u32 = 4;

/// The trimming of a stream with every message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trim {
    /// To about this many entries.
    Length(u64),
    /// Of entries that are older, about.
    Age(Duration),
}

/// Settings that all connections of one broker share.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) client: Client,
    /// Opens the transports, in place of the client's address.
    pub(super) opener: Option<Opener>,
    pub(super) tls: Option<Tls>,
    /// Made of `tls` when connecting.
    pub(super) connector: Option<TlsConnector>,
    pub(super) plaintext: Plaintext,
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
    pub(super) topology: Topology,
    pub(super) max_len: Option<u64>,
    pub(super) max_age: Option<Duration>,
    pub(super) retention: Retention,
    pub(super) claim_idle: Duration,
    /// The number of replicas that have a message before it is confirmed.
    pub(super) wait_replicas: usize,
    pub(super) wait_timeout: Duration,
}

impl Config {
    fn from_url(url: &BrokerUrl) -> Result<Self> {
        let is_tls = match url.scheme() {
            "redis" => false,
            TLS_SCHEME => true,
            other => {
                let message =
                    "the scheme of a Redis URL is redis, or rediss with TLS; for a socket file hand in a client";
                return Err(invalid(message).with_context("scheme", other));
            }
        };
        let mut config = Self::over(client_for(url)?);
        let mut options = url.options();
        config.tls = Tls::of_scheme(is_tls, &mut options)?;
        config.plaintext = options.take("plaintext")?.unwrap_or_default();
        let milliseconds = |given: Option<u64>, default| given.map_or(default, Duration::from_millis);
        config.topology = options.take("topology")?.unwrap_or_default();
        config.connect_timeout = milliseconds(options.take("connect_timeout")?, config.connect_timeout);
        config.response_timeout = milliseconds(options.take("response_timeout")?, config.response_timeout);
        config.claim_idle = milliseconds(options.take("claim_idle")?, config.claim_idle);
        config.max_len = options.take("maxlen")?;
        config.max_age = options.take("max_age")?.map(Duration::from_millis);
        config.retention = options.take("retention")?.unwrap_or_default();
        config.wait_replicas = options.take("wait_replicas")?.unwrap_or_default();
        config.wait_timeout = milliseconds(options.take("wait_timeout")?, config.wait_timeout);
        options.finish()?;
        Ok(config)
    }

    fn over(client: Client) -> Self {
        Self {
            client,
            opener: None,
            tls: None,
            connector: None,
            plaintext: Plaintext::default(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            response_timeout: DEFAULT_RESPONSE_TIMEOUT,
            topology: Topology::default(),
            max_len: None,
            max_age: None,
            retention: Retention::default(),
            claim_idle: DEFAULT_CLAIM_IDLE,
            wait_replicas: 0,
            wait_timeout: DEFAULT_WAIT_TIMEOUT,
        }
    }

    fn check(&self) -> Result<()> {
        self.check_transport()?;
        if self.connect_timeout.is_zero() || self.response_timeout.is_zero() || self.wait_timeout.is_zero() {
            return Err(invalid("a time-out must be longer than zero"));
        }
        if self.claim_idle < MIN_CLAIM_IDLE {
            return Err(invalid("claim_idle must be at least 100 ms"));
        }
        if self.max_len == Some(0) {
            return Err(invalid("maxlen must be at least 1: a stream of length 0 loses every message"));
        }
        if self.max_age.is_some_and(|age| age.is_zero() || self.max_len.is_some()) {
            return Err(invalid("max_age must be at least 1 ms, and cannot be combined with maxlen"));
        }
        Ok(())
    }

    /// Checks that the transport is the one that is meant, and keeps the password secret.
    fn check_transport(&self) -> Result<()> {
        if self.opener.is_some() {
            return match self.tls {
                Some(_) => Err(invalid("a transport makes its own TLS: leave out either of the two")),
                None => Ok(()),
            };
        }
        let info = self.client.get_connection_info();
        match (info.addr(), &self.tls) {
            (ConnectionAddr::TcpTls { .. }, None) => {
                Err(invalid("a client over TLS keeps its settings to itself: hand in RedisBuilder::tls"))
            }
            (ConnectionAddr::Unix(_), Some(_)) => Err(invalid("a socket file has no TLS")),
            (ConnectionAddr::Tcp(host, port), None) if info.redis_settings().password().is_some() => {
                self.plaintext.check(&[(host.clone(), *port)])
            }
            _ => Ok(()),
        }
    }

    /// Returns the trimming that goes with a publish.
    pub(super) fn trim(&self) -> Option<Trim> {
        self.max_len.map(Trim::Length).or_else(|| self.max_age.map(Trim::Age))
    }

    /// Returns the time that a command of the publisher may wait at the server for replicas, also
    /// behind another one.
    pub(super) fn waits(&self) -> Duration {
        if self.wait_replicas == 0 { Duration::ZERO } else { 2 * self.wait_timeout }
    }

    /// Returns the silence after which a connection is kept alive.
    pub(super) fn keep_alive(&self) -> Duration {
        LONGEST_SILENCE.min(self.claim_idle / ROUNDS)
    }

    /// Returns the address of the server, for errors: `host:port`, or the path of a socket file.
    pub(super) fn address(&self) -> String {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port}"),
            other => other.to_string(),
        }
    }
}

/// A builder of a [`Redis`] connection, with the settings of a URL and those that a URL cannot
/// hold. Setters never fail; connecting checks them.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use std::time::Duration;
/// use traced_broker::adapters::redis::Redis;
/// use traced_broker::{Secret, Traced};
///
/// let redis = Redis::builder("redis://cache.example:6379/2")
///     .credentials("shop", Secret::new(std::env::var("REDIS_PASSWORD").unwrap_or_default()))
///     .claim_idle(Duration::from_secs(60))
///     .connect()
///     .await?;
/// let broker: Traced<Redis> = Traced::new(redis);
/// # Ok(()) }
/// ```
///
/// Settings are checked before any connection is made:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use traced_broker::ErrorKind;
/// use traced_broker::adapters::redis::{MIN_CLAIM_IDLE, Redis};
///
/// let redis = Redis::builder("redis://localhost").claim_idle(MIN_CLAIM_IDLE / 2);
/// assert_eq!(redis.connect().await.unwrap_err().kind(), ErrorKind::InvalidConfig);
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct RedisBuilder {
    pub(super) config: Result<Config>,
}

impl RedisBuilder {
    pub(super) fn from_url(url: &BrokerUrl) -> Self {
        Self { config: Config::from_url(url) }
    }

    pub(super) fn from_text(url: &str) -> Self {
        Self { config: BrokerUrl::parse(url).and_then(|url| Config::from_url(&url)) }
    }

    pub(super) fn from_client(client: Client) -> Self {
        let info = attentive(client.get_connection_info().clone());
        Self { config: Ok(Config::over(Client::open(info).unwrap_or(client))) }
    }

    fn with(mut self, set: impl FnOnce(&mut Config)) -> Self {
        if let Ok(config) = &mut self.config {
            set(config);
        }
        self
    }

    /// Sets user and password of the server's ACL, in place of those of the URL.
    pub fn credentials(self, username: &str, password: Secret) -> Self {
        self.with(|config| {
            let info = config.client.get_connection_info().clone();
            let settings = info.redis_settings().clone().set_username(username).set_password(password.expose());
            if let Ok(client) = Client::open(info.set_redis_settings(settings)) {
                config.client = client;
            }
        })
    }

    /// Encrypts the connections, whatever the scheme of the URL. Default: only with `rediss://`.
    pub fn tls(self, tls: Tls) -> Self {
        self.with(|config| config.tls = Some(tls))
    }

    /// Sets whether a password may be sent without TLS to another machine. Default:
    /// [`Plaintext::Refused`].
    pub fn plaintext(self, plaintext: Plaintext) -> Self {
        self.with(|config| config.plaintext = plaintext)
    }

    /// Sets whether missing streams and consumer groups are created. Default: [`Topology::Create`].
    pub fn topology(self, topology: Topology) -> Self {
        self.with(|config| config.topology = topology)
    }

    /// Sets the maximum duration of connecting, and the time for which publishes wait for a lost
    /// connection. Default: 10 s.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.connect_timeout = timeout)
    }

    /// Sets the maximum time for the server's answer, after which the connection counts as lost.
    /// Default: 10 s, which is less than the default of `claim_idle`: a member learns that its
    /// server is gone before others take over its messages.
    pub fn response_timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.response_timeout = timeout)
    }

    /// Sets the maximum silence of a member of a group about a message before other members take it
    /// over, at least 100 ms. Default: 20 s.
    ///
    /// Members renew the messages that they hold, so it limits the time after a crash, not that of
    /// a handler.
    pub fn claim_idle(self, idle: Duration) -> Self {
        self.with(|config| config.claim_idle = idle)
    }

    /// Trims a stream at every publish to about this many entries, **whether they were handled or
    /// not**. Default: no trimming.
    pub fn max_len(self, entries: u64) -> Self {
        self.with(|config| config.max_len = Some(entries))
    }

    /// Trims a stream at every publish of messages older than this, **whether they were handled or
    /// not**. Default: no trimming. Cannot be combined with [`max_len`](Self::max_len).
    pub fn max_age(self, age: Duration) -> Self {
        self.with(|config| config.max_age = Some(age))
    }

    /// Sets the streams from which messages are removed that every group has handled, a minute
    /// after they were stored at the earliest. Default: [`Retention::Created`].
    pub fn retention(self, retention: Retention) -> Self {
        self.with(|config| config.retention = retention)
    }

    /// Confirms messages only when this many replicas have them. Default: 0, confirmed by the
    /// server alone. See [confirms](crate::adapters::redis#confirms).
    pub fn wait_replicas(self, replicas: usize) -> Self {
        self.with(|config| config.wait_replicas = replicas)
    }

    /// Sets the maximum time for the replicas to have a message. Later, its publish fails with
    /// [`ErrorKind::Timeout`] and an unknown outcome. Default: 5 s.
    pub fn wait_timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.wait_timeout = timeout)
    }

    /// Sets the function that opens a transport to the server, for each connection and each attempt
    /// to restore one: a tunnel, a proxy, the master that a Sentinel names. Credentials and
    /// database are those of the URL or the client; its address is only named on spans and in
    /// errors.
    ///
    /// ```no_run
    /// # async fn run() -> traced_broker::Result<()> {
    /// use tokio::net::TcpStream;
    /// use traced_broker::adapters::redis::Redis;
    ///
    /// // The near end of a tunnel to the server.
    /// let open = || TcpStream::connect("127.0.0.1:16379");
    /// let redis = Redis::builder("redis://cache.example:6379").transport(open).connect().await?;
    /// # drop(redis); Ok(()) }
    /// ```
    ///
    /// An error of the function is [`ErrorKind::Unavailable`], and it is called again.
    pub fn transport<O, F, T>(self, open: O) -> Self
    where
        O: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.with(|config| config.opener = Some(Opener::new(open)))
    }

    /// Connects to the server.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the URL or a setting is not valid, or a file for TLS cannot
    /// be used; [`ErrorKind::Unavailable`] if the server cannot be reached within the connect
    /// time-out, or is still loading its data; [`ErrorKind::Unauthenticated`] if it requires other
    /// credentials, or one side does not accept the certificate of the other.
    pub async fn connect(self) -> Result<Redis> {
        let connected = async {
            let mut config = self.config?;
            config.check()?;
            config.connector = config.tls.as_ref().map(TlsConnector::new).transpose()?;
            Redis::start(Arc::new(config)).await
        };
        connected.await.map_err(|error| error.with_system(SYSTEM).with_operation("connect"))
    }
}

fn client_for(url: &BrokerUrl) -> Result<Client> {
    let mut hosts = url.hosts(DEFAULT_PORT);
    let Some(address) = hosts.pop().filter(|_| hosts.is_empty()) else {
        return Err(invalid("a Redis URL names one host: clusters and sentinels are not supported"));
    };
    let mut settings = RedisConnectionInfo::default().set_db(database(url.path())?);
    if let Some(username) = url.username().filter(|name| !name.is_empty()) {
        settings = settings.set_username(username);
    }
    if let Some(password) = url.password() {
        settings = settings.set_password(password.expose());
    }
    let info = ConnectionAddr::Tcp(address.0, address.1).into_connection_info();
    info.and_then(|info| Client::open(attentive(info.set_redis_settings(settings))))
        .map_err(|error| invalid("the client rejected the Redis URL").with_source(error))
}

fn database(path: &str) -> Result<i64> {
    let number = path.trim_end_matches('/');
    if number.is_empty() {
        return Ok(0);
    }
    let parsed = number.parse().ok().filter(|number| *number >= 0);
    parsed.ok_or_else(|| invalid("the path of a Redis URL must be a database number").with_context("path", path))
}

/// Completes the options of sockets: small commands do not wait for the answers to previous ones,
/// and a server that is gone without a word is noticed. What the user has set is kept.
fn attentive(info: ConnectionInfo) -> ConnectionInfo {
    let mut settings = info.tcp_settings().clone().set_nodelay(true);
    if settings.keepalive().is_none() {
        let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
        settings = settings.set_keepalive(probes);
    }
    #[cfg(target_os = "linux")]
    if settings.user_timeout().is_none() {
        settings = settings.set_user_timeout(UNACKNOWLEDGED);
    }
    info.set_tcp_settings(settings)
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).with_system(SYSTEM)
}

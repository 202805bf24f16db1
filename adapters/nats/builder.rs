//! The builder of a connection.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use async_nats::Client;

use crate::driver::{BrokerUrl, Plaintext, Secret, SecretSource, Tls, Topology};
use crate::error::Result;

use super::Nats;
use super::config::{Acknowledge, Config, Credentials, Mode, Storage, TLS_SCHEME, invalid};
use super::connection::dial::Dial;
use super::headers::header_names::HeaderNames;

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
    /// The client to use instead of new ones.
    client: Option<Client>,
}

impl NatsBuilder {
    pub(super) fn new(url: &str) -> Self {
        let read = |url: BrokerUrl| match url.scheme() {
            "nats" | TLS_SCHEME => Config::read(&url),
            _ => Err(invalid("the scheme of a NATS URL is nats://, or tls:// to require TLS")),
        };
        Self { config: BrokerUrl::parse(url).and_then(read), client: None }
    }

    pub(super) fn from_url(url: &BrokerUrl) -> Self {
        Self { config: Config::read(url), client: None }
    }

    pub(super) fn from_client(client: Client) -> Self {
        let info = client.server_info();
        // Most servers listen at all addresses, and do not know the one that clients use.
        let is_address = info.host.parse::<IpAddr>().map_or(true, |address| !address.is_unspecified());
        let hosts = if is_address { vec![(info.host, info.port)] } else { Vec::new() };
        let config = BrokerUrl::parse("nats://localhost").and_then(|url| Config::read(&url));
        Self { config: config.map(|config| Config { hosts, ..config }), client: Some(client) }
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

    /// Sets the maximum time for which publishes wait while a cluster elects the leader of their
    /// stream; default 10 s. Zero fails them at once.
    ///
    /// They are certainly not stored before, and are sent in their order afterwards.
    pub fn election_wait(self, wait: Duration) -> Self {
        self.with(|config| config.election_wait = wait)
    }

    /// Sets the number of servers of a cluster that keep a stream that is created, 1 to 5; default
    /// 1.
    pub fn replicas(self, replicas: usize) -> Self {
        self.with(|config| config.replicas = replicas)
    }

    /// Sets the time for which a stream that is created keeps messages; default zero, which means
    /// forever.
    pub fn max_age(self, age: Duration) -> Self {
        self.with(|config| config.limits.max_age = age)
    }

    /// Sets the spelling of header names; default [`HeaderNames::Exact`].
    pub fn header_names(self, names: HeaderNames) -> Self {
        self.with(|config| config.header_names = names)
    }

    /// Sets the maximum size of all messages of a stream that is created, in bytes; default no
    /// limit. Beyond it the oldest are dropped, settled or not.
    pub fn max_bytes(self, bytes: i64) -> Self {
        self.with(|config| config.limits.max_bytes = Some(bytes))
    }

    /// Sets the maximum number of messages of a stream that is created; default no limit. Beyond
    /// it the oldest are dropped, settled or not.
    pub fn max_msgs(self, messages: i64) -> Self {
        self.with(|config| config.limits.max_msgs = Some(messages))
    }

    /// Sets the time for which a stream that is created knows the ids of its messages, not longer
    /// than `max_age`; default that of the server, two minutes.
    pub fn duplicate_window(self, window: Duration) -> Self {
        self.with(|config| config.limits.duplicate_window = Some(window))
    }

    /// Sets the place of the messages of a stream that is created; default [`Storage::File`].
    pub fn storage(self, storage: Storage) -> Self {
        self.with(|config| config.limits.storage = storage)
    }

    /// Sets the first tokens of the subjects at which answers and messages come, such as
    /// `_INBOX_orders`; default `_INBOX`.
    pub fn inbox_prefix(self, prefix: impl Into<String>) -> Self {
        self.with(|config| config.inbox_prefix = Some(prefix.into()))
    }

    /// Authenticates by user and password. The password is asked for at each connect.
    pub fn user(self, user: impl Into<String>, password: impl Into<SecretSource>) -> Self {
        self.with(|config| config.credentials = Credentials::User(user.into(), password.into()))
    }

    /// Authenticates by token, which is asked for at each connect.
    pub fn token(self, token: impl Into<SecretSource>) -> Self {
        self.with(|config| config.credentials = Credentials::Token(token.into()))
    }

    /// Authenticates by the seed of an nkey, `SU…`.
    pub fn nkey(self, seed: Secret) -> Self {
        self.with(|config| config.credentials = Credentials::Nkey(seed))
    }

    /// Authenticates by the JWT and seed in a `.creds` file.
    pub fn credentials_file(self, path: impl AsRef<Path>) -> Self {
        self.with(|config| config.credentials = Credentials::File(path.as_ref().to_owned()))
    }

    /// Requires TLS, with these settings. Without them, the server decides.
    pub fn tls(self, tls: Tls) -> Self {
        self.with(|config| (config.encryption.required, config.encryption.tls) = (true, Some(tls)))
    }

    /// Sets whether a password or token may be sent without TLS to another machine. Default:
    /// [`Plaintext::Refused`], which requires TLS there. An nkey is never sent.
    pub fn plaintext(self, plaintext: Plaintext) -> Self {
        self.with(|config| config.encryption.plaintext = plaintext)
    }

    /// Connects to the servers, or uses the client that was given.
    ///
    /// # Errors
    /// [`InvalidConfig`] if the URL or an option is not valid; [`Unavailable`] if no server answers
    /// in time; [`Unauthenticated`] if the server refuses the credentials, or one side does not
    /// accept the certificate of the other; [`Unsupported`] if it has no JetStream and
    /// [`Mode::Core`] is not set.
    ///
    /// [`InvalidConfig`]: crate::ErrorKind::InvalidConfig
    /// [`Unavailable`]: crate::ErrorKind::Unavailable
    /// [`Unauthenticated`]: crate::ErrorKind::Unauthenticated
    /// [`Unsupported`]: crate::ErrorKind::Unsupported
    pub async fn connect(self) -> Result<Nats> {
        let Self { config, client } = self;
        let config = config?;
        config.check()?;
        match client {
            Some(client) => Nats::over(config, Dial::given(client)?).await,
            None => Nats::open(config).await,
        }
    }

    fn with(mut self, set: impl FnOnce(&mut Config)) -> Self {
        if let Ok(config) = &mut self.config {
            set(config);
        }
        self
    }
}

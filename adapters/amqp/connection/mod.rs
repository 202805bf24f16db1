//! One connection: opens it within a time limit, notices its end, and closes it.

pub(crate) mod client;
pub(crate) mod engine;
pub(crate) mod link;
pub(crate) mod pending;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, Event};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use self::engine::Engine;
use super::config::Settings;
use super::error::{During, client_error};
use super::wire::frames::FrameFilter;
use super::wire::inspect::{FRAME_MAX, Inspector};
use super::wire::returned::Returned;
use super::wire::server::Server;
use super::wire::stream::{CheckedStream, Cut, runtime};
use crate::error::{Error, ErrorKind, Result};

/// Interval of checks of the state while the client reports no event.
const LOOK: Duration = Duration::from_secs(1);
/// Time that a dropped connection has to close in order before it is cut.
const FAREWELL: Duration = Duration::from_secs(2);
/// Time after which the next host is tried beside one that has not answered.
const HEAD_START: Duration = Duration::from_secs(1);

/// An open connection. Dropping it ends the connection and the client's thread.
pub(super) struct Live {
    pub(super) connection: Connection,
    pub(super) returned: Arc<Returned>,
    /// Notified when the connection or one of its channels may have ended.
    pub(super) changed: Notify,
    /// Maximum duration of a request.
    patience: Duration,
    cut: Arc<Cut>,
    /// Runs the tasks of this connection and of its channels.
    pub(super) engine: Arc<Engine>,
    /// The first number of the server's version, if it tells one.
    pub(super) server_major: Option<u32>,
}

impl Live {
    /// Connects to one of the hosts, in random order, so that they share the connections. The next
    /// one is tried when one has failed or does not answer soon. Returns the index of the host.
    ///
    /// Has to run on the engine, because the sockets belong to the runtime that opens them.
    pub(super) async fn open(settings: &Settings, purpose: &str, engine: &Arc<Engine>) -> Result<(Self, usize)> {
        let mut failure = Error::new(ErrorKind::Unavailable, "the broker URL names no host");
        let mut order: Vec<_> = settings.hosts.iter().enumerate().collect();
        order.sort_by_cached_key(|(index, _)| RandomState::new().hash_one(index));
        let (mut hosts, mut attempts) = (order.into_iter(), FuturesUnordered::new());
        loop {
            if let Some((index, (host, port))) = hosts.next() {
                attempts.push(async move {
                    let opened = Self::open_at(settings, purpose, host, *port, engine).await;
                    opened
                        .map(|live| (live, index))
                        .map_err(|error| error.with_context("server", format_args!("{host}:{port}")))
                });
            } else if attempts.is_empty() {
                return Err(failure);
            }
            let head_start = if hosts.len() > 0 { HEAD_START } else { Duration::MAX };
            match timeout(head_start, attempts.next()).await {
                Ok(Some(Ok(opened))) => return Ok(opened),
                // What does not pass by itself says more.
                Ok(Some(Err(error))) if failure.is_retryable() => failure = error,
                _ => {}
            }
        }
    }

    async fn open_at(settings: &Settings, purpose: &str, host: &str, port: u16, engine: &Arc<Engine>) -> Result<Self> {
        let cut = Arc::new(Cut::default());
        let unless_opened = CutOnDrop(Some(Arc::clone(&cut)));
        let returned = Arc::new(Returned::default());
        let server = Arc::new(Server::default());
        let filter = FrameFilter::new(Inspector::new(Arc::clone(&returned), Arc::clone(&server)));
        let handshake = async {
            let socket = dial(host, port).await.map_err(|error| client_error(error.into(), During::Connect))?;
            let socket = settings.handshake.make(host, socket).await?;
            let stream = Mutex::new(Some(CheckedStream::new(socket, filter, Arc::clone(&cut))));
            let connect = async move |_uri, _runtime| match stream.lock().take() {
                Some(stream) => Ok(AsyncTcpStream::Plain(stream)),
                // The client tries again only if the first stream ended before the broker sent any
                // byte.
                None => Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
            };
            let (uri, properties) = (uri(settings, host, port), properties(settings, purpose));
            let opened = Connection::connector(uri, runtime(), connect, properties).await;
            opened.map_err(|error| client_error(error, During::Connect))
        };
        let connected = timeout(settings.connect_timeout, handshake).await;
        let (returned, patience) = (Arc::clone(&returned), settings.connect_timeout);
        match connected {
            Ok(Ok(connection)) => {
                unless_opened.keep();
                Ok(Self {
                    connection,
                    returned,
                    changed: Notify::new(),
                    patience,
                    cut,
                    engine: Arc::clone(engine),
                    server_major: server.major(),
                })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let message =
                    "the broker did not answer in time: check host, port and network, or raise connect_timeout";
                Err(Error::new(ErrorKind::Unavailable, message)
                    .with_context("connect_timeout_ms", patience.as_millis()))
            }
        }
    }

    /// Opens a channel.
    pub(super) async fn channel(&self, during: During) -> Result<Channel> {
        self.request(during, self.connection.create_channel()).await
    }

    /// Awaits the answer to a request, up to the time limit.
    pub(super) async fn request<T>(&self, during: During, answer: impl Future<Output = lapin::Result<T>>) -> Result<T> {
        match timeout(self.patience, answer).await {
            Ok(answer) => answer.map_err(|error| client_error(error, during)),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "the broker did not answer in time")),
        }
    }

    /// Returns when the connection has ended. Logs the client's events meanwhile.
    pub(super) async fn ended(&self) {
        let mut events = pin!(self.connection.events_listener());
        while self.connection.status().connected() {
            match timeout(LOOK, events.next()).await {
                Ok(Some(Event::ConnectionBlocked(reason))) => {
                    tracing::warn!(reason, "the broker blocks publishing until its alarm is over");
                }
                Ok(Some(Event::ConnectionUnblocked)) => tracing::info!("the broker accepts messages again"),
                Ok(None) => break,
                _ => {}
            }
            self.changed.notify_waiters();
        }
        self.changed.notify_waiters();
    }

    /// Closes the connection, and cuts it whether or not the broker answers. Everything that
    /// matters has been sent before.
    pub(super) async fn close(&self) {
        let goodbye = self.request(During::Connect, self.connection.close(200, "OK".into()));
        // The client also reports an error, or waits in vain, when a channel is dropped meanwhile.
        match tokio::time::timeout(FAREWELL, goodbye).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a RabbitMQ connection was not closed cleanly"),
            Err(_) => tracing::debug!("a RabbitMQ connection was closed without an answer"),
        }
        self.cut.make();
    }
}

/// Cuts a connection when it is dropped.
struct CutOnDrop(Option<Arc<Cut>>);

impl CutOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.iter().for_each(|cut| cut.make());
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let last = CutOnDrop(Some(Arc::clone(&self.cut)));
        // Keeps the engine until then.
        let engine = Arc::clone(&self.engine);
        self.engine.spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            drop((last, engine));
        });
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("connected", &self.connection.status().connected()).finish_non_exhaustive()
    }
}

async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(socket) => return socket.set_nodelay(true).map(|()| socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn uri(settings: &Settings, host: &str, port: u16) -> AMQPUri {
    AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: settings.username.clone(),
                password: settings.password.expose().to_owned(),
            },
            host: host.to_owned(),
            port,
        },
        vhost: settings.virtual_host.clone(),
        query: AMQPQueryString {
            frame_max: Some(FRAME_MAX),
            heartbeat: u16::try_from(settings.heartbeat.as_secs()).ok(),
            ..AMQPQueryString::default()
        },
    }
}

fn properties(settings: &Settings, purpose: &str) -> ConnectionProperties {
    let name = format!("{} {purpose}", settings.name);
    ConnectionProperties::default().with_connection_name(name.into())
}

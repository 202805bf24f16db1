//! A connection to the server: commands that are sent one after the other, and their answers in the
//! same order.

pub(crate) mod answer;
pub(crate) mod backoff;
pub(crate) mod commands;
pub(crate) mod entry;
pub(crate) mod fields;
pub(crate) mod wire;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, io};

use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::io::tcp::socket2::SockRef;
use ::redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ErrorKind as ClientErrorKind, Pipeline, ProtocolVersion, PushInfo,
    PushKind, RedisConnectionInfo, RedisError, RedisResult, Value, cmd,
};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};

use self::answer::unreadable;
use self::entry::Entries;
use self::wire::Wire;
use super::config::Config;
use super::error::{SYSTEM, command_failed, kind_of};

/// Number of bytes waiting to be written at which the client stops taking commands.
const WRITE_BUFFER: usize = 64 * 1024;

/// A connection with one user.
///
/// Over plain TCP, the task that waits for an answer moves the bytes, not a task of the client's.
/// This saves two thread hops for each batch, and the end of the connection is noticed at once even
/// while no request is in flight. Over any other transport the client moves the bytes, and tells
/// when the connection is lost.
///
/// A connection on which nothing is in flight is kept alive by a `PING` once in a while, so that
/// neither a server nor a proxy takes it for forgotten, and a server that is gone is found out.
/// This happens while [`landed`](Self::landed) is awaited.
pub(super) struct Connection {
    link: Link,
    answer_within: Duration,
    /// Duration of silence after which the connection is kept alive.
    keep_alive: Duration,
    /// The time of the latest request.
    used: Instant,
    /// `true` while the oldest request in flight is one to keep the connection alive.
    is_pinging: bool,
}

/// The transport, and the unanswered requests on it, in order.
enum Link {
    Wire { wire: Wire, flights: VecDeque<Flight> },
    Client { commands: MultiplexedConnection, lost: Lost, flights: VecDeque<Answers> },
}

/// Commands in flight over a wire.
struct Flight {
    expected: usize,
    answers: Vec<Value>,
    deadline: Instant,
}

/// Completes when the client says that the connection is lost, and at once from then on.
type Lost = Shared<BoxFuture<'static, ()>>;

type Answers = BoxFuture<'static, RedisResult<Vec<Value>>>;

impl Connection {
    /// Connects, authenticates, selects the database and waits for the answer to a `PING`, all
    /// within the connect time-out.
    ///
    /// A command may take the response time-out, and `waiting` in addition if it waits at the
    /// server.
    pub(super) async fn open(config: &Config, waiting: Duration) -> Result<Self> {
        let opening = async {
            let mut connection = connect(config, config.response_timeout + waiting).await?;
            // A server that is loading its data, or requires a password and got none, says so at
            // the first command.
            connection.call(&cmd("PING")).await?;
            Ok(connection)
        };
        match tokio::time::timeout(config.connect_timeout, opening).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(refused(config, error)),
            Err(_) => Err(unreachable(config).with_context("waited_ms", config.connect_timeout.as_millis())),
        }
    }

    fn over(link: Link, answer_within: Duration, keep_alive: Duration) -> Self {
        Self { link, answer_within, keep_alive, used: Instant::now(), is_pinging: false }
    }

    /// Sends a command and waits for its answer. No other request may be in flight. A caller that
    /// drops the future must drop the connection as well.
    pub(super) async fn call(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.push(command).await;
        answered(self.landed().await?.pop().unwrap_or_default())
    }

    async fn push(&mut self, command: &Cmd) {
        let deadline = self.use_until();
        match &mut self.link {
            Link::Wire { wire, flights } => {
                wire.send(&command.get_packed_command());
                flights.push_back(Flight { expected: 1, answers: Vec::with_capacity(1), deadline });
            }
            Link::Client { commands, flights, .. } => {
                let (mut commands, command) = (commands.clone(), command.clone());
                let answer = async move { commands.send_packed_command(&command).await.map(|answer| vec![answer]) };
                flights.push_back(begun(Box::pin(answer)).await);
            }
        }
    }

    /// Records that a request begins, and returns the time until which it may take.
    fn use_until(&mut self) -> Instant {
        self.used = Instant::now();
        self.used + self.answer_within
    }

    /// Works like [`call`](Self::call), for a command that reads entries.
    pub(super) async fn read(&mut self, command: &Cmd) -> RedisResult<Entries> {
        if self.is_pinging {
            self.landed_flight().await?;
            self.is_pinging = false;
        }
        self.use_until();
        let Link::Wire { wire, .. } = &mut self.link else {
            return Entries::of_read(self.call(command).await?).map_err(|_| unreadable());
        };
        wire.send(&command.get_packed_command());
        let answer = tokio::time::timeout(self.answer_within, poll_fn(|cx| wire.poll_raw(cx))).await;
        let answer = answer.map_err(|_| timed_out())??;
        if answer.first() == Some(&b'-') {
            return answered(answer::read(&answer)?).map(|_| Entries::default());
        }
        entry::entries(&answer)
    }

    /// Works like [`call`](Self::call), for commands that are sent together; the server's refusals
    /// are among the answers.
    pub(super) async fn call_all(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        self.send(pipeline).await;
        self.landed().await
    }

    /// Sends commands together, behind those in flight, without waiting for an answer.
    pub(super) async fn send(&mut self, pipeline: &Pipeline) {
        let expected = pipeline.len();
        let deadline = self.use_until();
        match &mut self.link {
            Link::Wire { wire, flights } => {
                wire.send(&pipeline.get_packed_pipeline());
                flights.push_back(Flight { expected, answers: Vec::with_capacity(expected), deadline });
            }
            Link::Client { commands, flights, .. } => {
                let (mut commands, pipeline) = (commands.clone(), pipeline.clone());
                let answers = async move { commands.send_packed_commands(&pipeline, 0, expected).await };
                flights.push_back(begun(Box::pin(answers)).await);
            }
        }
    }

    /// Returns the answers to the oldest request in flight, or the reason why the connection is
    /// lost. While no request is in flight, it only waits for the loss. It may be dropped and
    /// called again.
    pub(super) async fn landed(&mut self) -> RedisResult<Vec<Value>> {
        loop {
            if self.link.is_silent() {
                let due = self.used + self.keep_alive;
                match tokio::time::timeout_at(due, self.landed_flight()).await {
                    Ok(lost) => return lost,
                    Err(_) => {
                        self.is_pinging = true;
                        self.push(&cmd("PING")).await;
                    }
                }
            }
            let answers = self.landed_flight().await?;
            // A refusal is a sign of life, too.
            if !std::mem::take(&mut self.is_pinging) {
                return Ok(answers);
            }
        }
    }

    async fn landed_flight(&mut self) -> RedisResult<Vec<Value>> {
        let Self { link, .. } = self;
        let deadline = match link {
            Link::Wire { flights, .. } => flights.front().map(|flight| flight.deadline),
            Link::Client { .. } => None,
        };
        let landed = poll_fn(|cx| link.poll_landed(cx));
        match deadline {
            Some(deadline) => match tokio::time::timeout_at(deadline, landed).await {
                Ok(answers) => answers,
                Err(_) => Err(timed_out()),
            },
            None => landed.await,
        }
    }
}

impl Link {
    /// Returns `true` if nothing is in flight.
    fn is_silent(&self) -> bool {
        match self {
            Self::Wire { flights, .. } => flights.is_empty(),
            Self::Client { flights, .. } => flights.is_empty(),
        }
    }

    fn poll_landed(&mut self, cx: &mut Context<'_>) -> Poll<RedisResult<Vec<Value>>> {
        match self {
            Self::Wire { wire, flights } => {
                loop {
                    match flights.front_mut() {
                        Some(flight) if flight.answers.len() == flight.expected => break,
                        Some(flight) => flight.answers.push(ready!(wire.poll_answer(cx))?),
                        None => return Poll::Ready(ready!(wire.poll_answer(cx)).and_then(|_| Err(unasked()))),
                    }
                }
                Poll::Ready(Ok(flights.pop_front().map(|flight| flight.answers).unwrap_or_default()))
            }
            Self::Client { lost, flights, .. } => {
                if let Some(flight) = flights.front_mut() {
                    let answers = ready!(flight.as_mut().poll(cx));
                    flights.pop_front();
                    return Poll::Ready(answers);
                }
                lost.poll_unpin(cx).map(|()| Err(io::Error::from(io::ErrorKind::BrokenPipe).into()))
            }
        }
    }
}

/// Hands a request to the client, which happens at its first poll. The poll is unconstrained: if it
/// were postponed because the task is out of budget, the next request would overtake this one.
async fn begun(mut answers: Answers) -> Answers {
    match poll_fn(|cx| Poll::Ready(pin!(unconstrained(answers.as_mut())).poll(cx))).await {
        Poll::Pending => answers,
        Poll::Ready(result) => Box::pin(std::future::ready(result)),
    }
}

/// Returns an answer that is not a refusal. Unlike the client's own function, it does not search
/// the contents of the answer.
pub(super) fn answered(answer: Value) -> RedisResult<Value> {
    match answer {
        Value::ServerError(refusal) => Err(refusal.into()),
        answer => Ok(answer),
    }
}

async fn connect(config: &Config, answer_within: Duration) -> RedisResult<Connection> {
    let info = config.client.get_connection_info();
    let settings = info.redis_settings();
    match info.addr() {
        ConnectionAddr::Tcp(host, port) if settings.protocol() == ProtocolVersion::RESP2 => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            apply(info.tcp_settings(), &stream)?;
            let link = Link::Wire { wire: Wire::new(stream), flights: VecDeque::new() };
            let mut connection = Connection::over(link, answer_within, config.keep_alive());
            introduce(&mut connection, settings).await?;
            Ok(connection)
        }
        _ => {
            let link = through_client(config, answer_within).await?;
            Ok(Connection::over(link, answer_within, config.keep_alive()))
        }
    }
}

/// Sets the options of a socket, as the client does for its own.
fn apply(settings: &TcpSettings, stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(settings.nodelay())?;
    if let Some(keep_alive) = settings.keepalive() {
        socket.set_tcp_keepalive(keep_alive)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(settings.user_timeout())?;
    Ok(())
}

/// Authenticates, selects the database, and names the program for the server's list of clients.
async fn introduce(connection: &mut Connection, settings: &RedisConnectionInfo) -> RedisResult<()> {
    if let Some(password) = settings.password() {
        let mut command = cmd("AUTH");
        command.arg(settings.username()).arg(password);
        if let Err(refusal) = connection.call(&command).await {
            // Any refusal of this command concerns the credentials.
            let detail = refusal.detail().unwrap_or_default().to_owned();
            let unauthenticated = (ClientErrorKind::AuthenticationFailed, "the server refused the credentials", detail);
            return Err(if refusal.code().is_some() { unauthenticated.into() } else { refusal });
        }
    }
    if settings.db() != 0 {
        connection.call(cmd("SELECT").arg(settings.db())).await?;
    }
    if !settings.skip_set_lib_name() {
        let name = settings.lib_name().unwrap_or(env!("CARGO_PKG_NAME"));
        let version = settings.lib_ver().unwrap_or(env!("CARGO_PKG_VERSION"));
        let mut names = Pipeline::with_capacity(2);
        names.cmd("CLIENT").arg("SETINFO").arg("LIB-NAME").arg(name);
        names.cmd("CLIENT").arg("SETINFO").arg("LIB-VER").arg(version);
        // Refusals do not matter: a server before 7.2 does not know the command, and a user may
        // lack the permission.
        connection.call_all(&names).await?;
    }
    Ok(())
}

async fn through_client(config: &Config, answer_within: Duration) -> RedisResult<Link> {
    let lost = CancellationToken::new();
    let signal = lost.clone();
    let options = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        .set_response_timeout(Some(answer_within))
        .set_write_backpressure_boundary(WRITE_BUFFER)
        .set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                signal.cancel();
            }
            Ok::<(), std::convert::Infallible>(())
        });
    let commands = config.client.get_multiplexed_async_connection_with_config(&options).await?;
    let lost = lost.cancelled_owned().boxed().shared();
    Ok(Link::Client { commands, lost, flights: VecDeque::new() })
}

fn timed_out() -> RedisError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

fn unasked() -> RedisError {
    RedisError::from((ClientErrorKind::Parse, "the server sent an answer without a request"))
}

fn refused(config: &Config, error: ::redis::RedisError) -> Error {
    match kind_of(&error) {
        ErrorKind::Unavailable | ErrorKind::Timeout if error.code().is_none() => unreachable(config).with_source(error),
        _ => command_failed("connect", error).with_context("server", config.address()),
    }
}

fn unreachable(config: &Config) -> Error {
    let message =
        "cannot reach the server: check host and port, that Redis runs there, and that it listens on that address";
    Error::new(ErrorKind::Unavailable, message).with_system(SYSTEM).with_context("server", config.address())
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

#[cfg(test)]
mod tests {
    use ::redis::Client;
    use ::redis::io::tcp::socket2::TcpKeepalive;
    use tokio::net::TcpListener;

    use super::*;

    /// Returns what the socket of a connection has: keep-alive after this silence, and the limit
    /// for unacknowledged bytes.
    async fn options_of(settings: TcpSettings) -> (Duration, Option<Duration>, bool) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let info = Client::open(url).unwrap().get_connection_info().clone().set_tcp_settings(settings);
        let builder = crate::adapters::redis::Redis::from_client(Client::open(info).unwrap());
        let config = builder.config.unwrap();
        let mut opening = Box::pin(connect(&config, Duration::from_secs(1)));
        let accepting = async {
            let (stream, _) = listener.accept().await.unwrap();
            std::future::poll_fn(|cx| stream.poll_read_ready(cx)).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut { stream }, b"+OK\r\n+OK\r\n").await.unwrap();
        };
        let (opened, ()) = tokio::join!(&mut opening, accepting);
        let Link::Wire { wire, .. } = opened.unwrap().link else { panic!("over plain TCP") };
        let socket = SockRef::from(wire.stream());
        (
            socket.tcp_keepalive_time().unwrap(),
            socket.tcp_user_timeout().unwrap(),
            socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap(),
        )
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn sockets_notice_a_dead_peer_and_have_the_options_of_the_users_client() {
        let seconds = Duration::from_secs;
        let (time, unacknowledged, is_on) = options_of(TcpSettings::default()).await;
        assert!(time <= seconds(10) && unacknowledged.unwrap() <= seconds(10) && is_on, "{time:?} {unacknowledged:?}");
        let own = TcpKeepalive::new().with_time(seconds(77));
        let settings = TcpSettings::default().set_keepalive(own).set_user_timeout(seconds(99));
        assert_eq!(options_of(settings).await, (seconds(77), Some(seconds(99)), true));
    }
}

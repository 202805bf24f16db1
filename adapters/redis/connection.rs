//! One connection to the server: commands that are sent one after the other, and their answers in that order.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
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

use super::answer::{self, unreadable};
use super::config::Config;
use super::entry::Entries;
use super::error::{SYSTEM, command_failed, kind_of};
use super::fields;
use super::wire::Wire;

/// How many bytes may wait to be written before the client stops taking commands.
const WRITE_BUFFER: usize = 64 * 1024;

/// A connection that nobody else uses.
///
/// Over plain TCP the bytes are moved here, by whoever waits for an answer, rather than in a task of the client's: that saves
/// two thread hops for each batch, and the end of the connection is seen at once also while nothing is asked. Over anything
/// else the client moves them, and tells when the connection is lost.
pub(super) struct Connection {
    link: Link,
    answer_within: Duration,
}

/// What moves the bytes, and what was sent over it and is not answered, in order.
enum Link {
    Wire { wire: Wire, flights: VecDeque<Flight> },
    Client { commands: MultiplexedConnection, lost: Lost, flights: VecDeque<Answers> },
}

/// Commands on their way over a wire.
struct Flight {
    expected: usize,
    answers: Vec<Value>,
    deadline: Instant,
}

/// Completes when the client says that the connection is lost; from then on at once.
type Lost = Shared<BoxFuture<'static, ()>>;

type Answers = BoxFuture<'static, RedisResult<Vec<Value>>>;

impl Connection {
    /// Connects, authenticates, selects the database and has one `PING` answered, all within the connect time-out.
    ///
    /// A command may take the response time-out, and `waiting` on top where commands wait at the server.
    pub(super) async fn open(config: &Config, waiting: Duration) -> Result<Self> {
        let opening = async {
            let mut connection = connect(config, config.response_timeout + waiting).await?;
            // A server that loads its data, or wants a password and was given none, says so to the first command.
            connection.call(&cmd("PING")).await?;
            Ok(connection)
        };
        match tokio::time::timeout(config.connect_timeout, opening).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(refused(config, error)),
            Err(_) => Err(unreachable(config).with_context("waited_ms", config.connect_timeout.as_millis())),
        }
    }

    /// Sends a command and waits for its answer. Nothing else may be on its way, and whoever drops the future instead must
    /// drop the connection as well.
    pub(super) async fn call(&mut self, command: &Cmd) -> RedisResult<Value> {
        let deadline = Instant::now() + self.answer_within;
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
        answered(self.landed().await?.pop().unwrap_or_default())
    }

    /// As [`call`](Self::call), for a command that reads entries.
    pub(super) async fn read(&mut self, command: &Cmd) -> RedisResult<Entries> {
        let Link::Wire { wire, .. } = &mut self.link else {
            return Entries::of_read(self.call(command).await?).map_err(|_| unreadable());
        };
        wire.send(&command.get_packed_command());
        let answer = tokio::time::timeout(self.answer_within, poll_fn(|cx| wire.poll_raw(cx))).await;
        let answer = answer.map_err(|_| timed_out())??;
        if answer.first() == Some(&b'-') {
            return answered(answer::read(&answer)?).map(|_| Entries::default());
        }
        fields::entries(&answer)
    }

    /// As [`call`](Self::call) for commands that are sent together; the server's refusals are among the answers.
    pub(super) async fn call_all(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        self.send(pipeline).await;
        self.landed().await
    }

    /// Sends commands together, behind what is on its way, without waiting for anything.
    pub(super) async fn send(&mut self, pipeline: &Pipeline) {
        let expected = pipeline.len();
        let deadline = Instant::now() + self.answer_within;
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

    /// The answers to what was sent first of all that is on its way, or why the connection is lost; while nothing is on its
    /// way, it can only become lost. It may be dropped and called again.
    pub(super) async fn landed(&mut self) -> RedisResult<Vec<Value>> {
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

/// Hands what is to be sent to the client, which its first poll does. Unconstrained: what was put off because a task is out
/// of its budget would be overtaken by what comes next.
async fn begun(mut answers: Answers) -> Answers {
    match poll_fn(|cx| Poll::Ready(pin!(unconstrained(answers.as_mut())).poll(cx))).await {
        Poll::Pending => answers,
        Poll::Ready(result) => Box::pin(std::future::ready(result)),
    }
}

/// An answer that is no refusal. Unlike the client's own, it does not search all that an answer holds.
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
            stream.set_nodelay(true)?;
            let link = Link::Wire { wire: Wire::new(stream), flights: VecDeque::new() };
            let mut connection = Connection { link, answer_within };
            introduce(&mut connection, settings).await?;
            Ok(connection)
        }
        _ => {
            let link = through_client(config, answer_within).await?;
            Ok(Connection { link, answer_within })
        }
    }
}

/// Authenticates, selects the database, and names the program to whoever lists the server's clients.
async fn introduce(connection: &mut Connection, settings: &RedisConnectionInfo) -> RedisResult<()> {
    if let Some(password) = settings.password() {
        let mut command = cmd("AUTH");
        command.arg(settings.username()).arg(password);
        if let Err(refusal) = connection.call(&command).await {
            // Whatever the server says about it, it says it of the credentials.
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
        // A server before 7.2 does not know the command, and a user may not be allowed to.
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
    RedisError::from((ClientErrorKind::Parse, "the server answered what nobody asked"))
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

//! One connection to the server, whose input and output happen in the task that uses it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Cmd, ConnectionAddr, Pipeline, PushInfo, PushKind, RedisResult, Value, cmd};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};

use super::config::Config;
use super::error::{SYSTEM, command_failed, kind_of};

/// How many bytes may wait to be written before the client stops taking commands.
const WRITE_BUFFER: usize = 64 * 1024;

/// A connection that nobody else uses.
///
/// The client splits a connection into a handle and a driver that moves the bytes. The driver is polled here, by whoever waits
/// for an answer, rather than in a task of its own: that saves two thread hops for each batch, and the end of the driver is
/// the end of the connection, seen at once also while nothing is asked.
pub(super) struct Connection {
    commands: MultiplexedConnection,
    driver: Pin<Box<dyn Future<Output = ()> + Send>>,
}

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

    /// Sends a command and waits for its answer. Whoever drops the future instead must drop the connection as well if the
    /// command changed anything.
    pub(super) async fn call(&mut self, command: &Cmd) -> RedisResult<Value> {
        let Self { commands, driver } = self;
        answered(drive(driver, commands.send_packed_command(command)).await?)
    }

    /// Sends commands together and waits for all answers; the server's refusals are among them.
    pub(super) async fn call_all(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let Self { commands, driver } = self;
        drive(driver, commands.send_packed_commands(pipeline, 0, pipeline.len())).await
    }

    /// A handle to send with while [`lost`](Self::lost) is polled; without that nothing moves.
    pub(super) fn handle(&self) -> MultiplexedConnection {
        self.commands.clone()
    }

    /// Moves bytes until the connection is lost.
    pub(super) async fn lost(&mut self) {
        self.driver.as_mut().await;
        hang_up(&mut self.driver);
    }
}

/// An answer that is no refusal. Unlike the client's own, it does not search all that an answer holds.
pub(super) fn answered(answer: Value) -> RedisResult<Value> {
    match answer {
        Value::ServerError(refusal) => Err(refusal.into()),
        answer => Ok(answer),
    }
}

/// Polls `answer` and the driver until there is an answer. The end of the driver is an answer too: the client then fails what
/// it has not answered.
async fn drive<T>(
    driver: &mut Pin<Box<dyn Future<Output = ()> + Send>>,
    answer: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    let mut answer = pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        () = driver.as_mut() => hang_up(driver),
    }
    answer.await
}

/// Drops a driver that has ended, which answers what waits; what is left is lost whenever asked.
fn hang_up(driver: &mut Pin<Box<dyn Future<Output = ()> + Send>>) {
    *driver = Box::pin(poll_fn(|_| Poll::Ready(())));
}

async fn connect(config: &Config, answer_within: Duration) -> RedisResult<Connection> {
    let options = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        .set_response_timeout(Some(answer_within))
        .set_write_backpressure_boundary(WRITE_BUFFER);
    let info = config.client.get_connection_info();
    if let ConnectionAddr::Tcp(host, port) = info.addr() {
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        let (commands, driver) = MultiplexedConnection::new_with_config(info.redis_settings(), stream, options).await?;
        return Ok(Connection { commands, driver: Box::pin(driver) });
    }
    let lost = CancellationToken::new();
    let signal = lost.clone();
    let options = options.set_push_sender(move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            signal.cancel();
        }
        Ok::<(), std::convert::Infallible>(())
    });
    let commands = config.client.get_multiplexed_async_connection_with_config(&options).await?;
    Ok(Connection { commands, driver: Box::pin(async move { lost.cancelled().await }) })
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

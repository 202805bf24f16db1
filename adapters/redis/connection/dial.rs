//! Opens a connection to the server: over TCP, a socket file, or a transport of the application's.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ::redis::io::tcp::TcpSettings;
use ::redis::io::tcp::socket2::SockRef;
use ::redis::{
    ConnectionAddr, ErrorKind as ClientErrorKind, Pipeline, RedisConnectionInfo, RedisError, RedisResult, cmd,
};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;

use super::super::config::Config;
use super::super::transport::Transport;
use super::Connection;

/// Time without an answer after which the next address of a name is tried, beside those before it.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Connects, authenticates, selects the database and waits for the answer to a `PING`. A command
/// over the connection may take `answer_within`.
pub(super) async fn dial(config: &Config, answer_within: Duration) -> RedisResult<Connection> {
    let info = config.client.get_connection_info();
    let greet = |transport| greeted(config, transport, answer_within);
    match (&config.opener, info.addr()) {
        (Some(opener), _) => greet(opener.open().await?).await,
        (None, ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }) => {
            // Looked up each time: after a failover, the name may have another address.
            let addresses = tokio::net::lookup_host((host.as_str(), *port)).await?;
            let settings = info.tcp_settings();
            first(addresses, |address| async move {
                let socket = connect(address, settings).await?;
                match &config.connector {
                    Some(tls) => greet(Box::new(tls.handshake(host, socket).await?)).await,
                    None => greet(Box::new(socket)).await,
                }
            })
            .await
        }
        #[cfg(unix)]
        (None, ConnectionAddr::Unix(path)) => greet(Box::new(tokio::net::UnixStream::connect(path).await?)).await,
        (None, _) => Err((ClientErrorKind::InvalidClientConfig, "no transport for this kind of address").into()),
    }
}

/// Returns the first success. The next address is tried if an attempt fails or takes long, because
/// a name may have addresses where no server answers. If all fail, a server's refusal tells most.
async fn first<A, C, F: Future<Output = RedisResult<C>>>(
    mut addresses: impl Iterator<Item = A>,
    attempt: impl Fn(A) -> F,
) -> RedisResult<C> {
    let mut attempts = FuturesUnordered::new();
    let mut failure = RedisError::from(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    let mut next = addresses.next();
    loop {
        attempts.extend(next.take().map(&attempt));
        if attempts.is_empty() {
            return Err(failure);
        }
        next = addresses.next();
        let outcome = match next {
            Some(_) => tokio::time::timeout(NEXT_ADDRESS, attempts.next()).await.unwrap_or_default(),
            None => attempts.next().await,
        };
        match outcome {
            Some(Ok(connection)) => return Ok(connection),
            Some(Err(error)) if failure.code().is_none() => failure = error,
            Some(Err(_)) | None => {}
        }
    }
}

/// Connects a socket with these options, as the client does.
async fn connect(address: SocketAddr, settings: &TcpSettings) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_nodelay(settings.nodelay())?;
    if let Some(keep_alive) = settings.keepalive() {
        socket.set_tcp_keepalive(keep_alive)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(settings.user_timeout())?;
    Ok(stream)
}

/// Returns a connection over the transport on which the server has answered.
async fn greeted(config: &Config, transport: Box<dyn Transport>, answer_within: Duration) -> RedisResult<Connection> {
    let mut connection = Connection::over(transport, answer_within, config.keep_alive());
    introduce(&mut connection, config.client.get_connection_info().redis_settings()).await?;
    // A server that is loading its data, or requires a password and got none, says so at the first
    // command.
    connection.call(&cmd("PING")).await?;
    Ok(connection)
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

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use ::redis::Client;
    use ::redis::io::tcp::socket2::TcpKeepalive;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    /// Returns the options of a socket: keep-alive after this silence, and the limit for
    /// unacknowledged bytes.
    async fn options_of(settings: TcpSettings) -> (Duration, Option<Duration>, bool) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let info = Client::open(format!("redis://{address}")).unwrap().get_connection_info().clone();
        let client = Client::open(info.set_tcp_settings(settings)).unwrap();
        let config = crate::adapters::redis::Redis::from_client(client).config.unwrap();
        let stream = connect(address, config.client.get_connection_info().tcp_settings()).await.unwrap();
        let socket = SockRef::from(&stream);
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

    /// The outcome of an attempt at an address.
    async fn outcome(of: &'static str) -> RedisResult<&'static str> {
        match of {
            "silent" => pending().await,
            "closed" => Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
            "refusing" => ::redis::parse_redis_value(b"-LOADING it loads\r\n")?.extract_error().map(|_| of),
            _ => ready(Ok(of)).await,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_costs_little() {
        let began = Instant::now();
        let addresses = ["silent", "closed", "silent", "refusing", "good", "silent"];
        assert_eq!(first(addresses.into_iter(), outcome).await.unwrap(), "good");
        let waited = began.elapsed();
        assert!((2 * NEXT_ADDRESS..3 * NEXT_ADDRESS).contains(&waited), "{waited:?}");
        let failure = first(["closed", "refusing", "closed"].into_iter(), outcome).await.unwrap_err();
        assert_eq!(failure.code(), Some("LOADING"), "the server that answered says why");
        assert!(first(std::iter::empty(), outcome).await.unwrap_err().to_string().contains("no address"));
    }
}

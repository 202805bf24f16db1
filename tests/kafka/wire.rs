//! A server behind a proxy that reads the protocol, and swallows requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, spawn_blocking};

use crate::support::{Kind, Server};

/// The number of the request for messages.
const FETCH: i16 = 1;

#[derive(Debug, Default)]
struct State {
    opened: AtomicUsize,
    /// The fetches of connections before this one are swallowed.
    deaf: AtomicUsize,
    /// The bytes that the server has sent.
    sent: AtomicU64,
    /// The bytes that clients have sent.
    received: AtomicU64,
}

/// A server, and the proxy through which its clients reach it.
pub(crate) struct Behind {
    _server: Server,
    /// The address of the proxy, to connect to.
    pub(crate) url: String,
    state: Arc<State>,
    _connections: JoinSet<()>,
}

impl Behind {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Clients connect to the address that the server tells them.
        let advertised = format!("advertised.listeners=CLIENTS://127.0.0.1:{port}");
        let server = spawn_blocking(move || {
            let own = Server::free_port(Kind::Kafka);
            Server::start_at(Kind::Kafka, own, vec![("KAFKA_PROPERTIES", advertised)])
        });
        let server = server.await.unwrap();
        let (state, to) = (Arc::new(State::default()), server.port());
        let mut connections = JoinSet::new();
        let shared = Arc::clone(&state);
        connections.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let number = shared.opened.fetch_add(1, Ordering::SeqCst);
                open.spawn(pass(client, to, number, Arc::clone(&shared)));
            }
        });
        Self { _server: server, url: format!("kafka://127.0.0.1:{port}"), state, _connections: connections }
    }

    /// Swallows from now on the requests for messages of the connections that are open now. Their
    /// clients stay members of their groups. New connections are well.
    pub(crate) fn swallow_fetches(&self) {
        self.state.deaf.store(self.state.opened.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Returns the number of bytes that clients have sent.
    pub(crate) fn received(&self) -> u64 {
        self.state.received.load(Ordering::SeqCst)
    }

    /// Returns the number of bytes that the server has sent.
    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, to: u16, number: usize, state: Arc<State>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async {
        while let Ok(frame) = read(&mut from_client).await {
            state.received.fetch_add(frame.len() as u64, Ordering::SeqCst);
            let is_fetch = frame.first_chunk() == Some(&FETCH.to_be_bytes());
            if !is_fetch || number >= state.deaf.load(Ordering::SeqCst) {
                write(&mut to_server, &frame).await?;
            }
        }
        Ok::<_, std::io::Error>(())
    };
    let answers = async {
        while let Ok(frame) = read(&mut from_server).await {
            state.sent.fetch_add(frame.len() as u64, Ordering::SeqCst);
            write(&mut to_client, &frame).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    // The connections end together.
    tokio::select! { _ = requests => {}, _ = answers => {} }
}

async fn read(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; from.read_u32().await? as usize];
    from.read_exact(&mut frame).await?;
    Ok(frame)
}

async fn write(to: &mut OwnedWriteHalf, frame: &[u8]) -> std::io::Result<()> {
    to.write_u32(u32::try_from(frame.len()).unwrap()).await?;
    to.write_all(frame).await
}

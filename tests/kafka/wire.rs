//! A server behind a proxy that reads the protocol, swallows requests, and changes answers.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, spawn_blocking};

use crate::support::{Kind, Server};

/// The numbers of the requests for messages and for the state of the cluster.
const FETCH: i16 = 1;
const METADATA: i16 = 3;
/// The first version of the latter whose answer has this form.
const COMPACT: i16 = 9;

#[derive(Debug, Default)]
struct State {
    opened: AtomicUsize,
    /// The fetches of connections before this one are swallowed.
    deaf: AtomicUsize,
    /// Answers to connections before this one name no brokers.
    lost: AtomicUsize,
    /// The number of answers whose brokers were taken out.
    hidden: AtomicUsize,
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

    /// Takes the brokers out of the next answer about the cluster to each connection that is open
    /// now, and ends the connection with it: so does a server that stops. New connections are well.
    pub(crate) fn hide_brokers(&self) {
        self.state.lost.store(self.state.opened.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Returns the number of answers that named no brokers.
    pub(crate) fn hidden(&self) -> usize {
        self.state.hidden.load(Ordering::SeqCst)
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
    // The correlation ids of questions for the cluster.
    let asked = Mutex::new(HashSet::new());
    let requests = async {
        while let Ok(frame) = read(&mut from_client).await {
            state.received.fetch_add(frame.len() as u64, Ordering::SeqCst);
            if number_at(&frame, 0) == METADATA && number_at(&frame, 2) >= COMPACT {
                asked.lock().unwrap().insert(frame[4..8].to_vec());
            }
            let is_fetch = frame.first_chunk() == Some(&FETCH.to_be_bytes());
            if !is_fetch || number >= state.deaf.load(Ordering::SeqCst) {
                write(&mut to_server, &frame).await?;
            }
        }
        Ok::<_, std::io::Error>(())
    };
    let answers = async {
        while let Ok(mut frame) = read(&mut from_server).await {
            state.sent.fetch_add(frame.len() as u64, Ordering::SeqCst);
            let is_metadata = asked.lock().unwrap().remove(&frame[..4]);
            if is_metadata && number < state.lost.load(Ordering::SeqCst) {
                take_out_brokers(&mut frame);
                state.hidden.fetch_add(1, Ordering::SeqCst);
                return write(&mut to_client, &frame).await;
            }
            write(&mut to_client, &frame).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    // The connections end together.
    tokio::select! { _ = requests => {}, _ = answers => {} }
}

fn number_at(frame: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([frame[at], frame[at + 1]])
}

/// Takes the brokers out of an answer: correlation id (4 bytes), tags (1, none), throttling (4),
/// and the brokers: their number plus one, and of each its id (4), host, port (4), rack and tags.
/// Texts begin with their length plus one, or with 0 for none. All these numbers are small here.
fn take_out_brokers(answer: &mut Vec<u8>) {
    let begin = 9;
    let text = |at: usize| at + usize::from(answer[at].max(1));
    let mut end = begin + 1;
    for _ in 1..answer[begin] {
        let rack = text(end + 4) + 4;
        end = text(rack) + 1;
    }
    answer.splice(begin..end, [1]);
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

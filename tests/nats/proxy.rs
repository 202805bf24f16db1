//! A way to a server that can be cut, and that can lose what the server sends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The state of all connections.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Air {
    /// The number of cuts; a connection ends with the next one.
    cuts: u64,
    /// `true` if what the server sends is lost.
    swallows: bool,
    /// `true` if what the server sends is not read.
    stalls: bool,
    /// `true` if what the client sends is lost.
    is_deaf: bool,
    /// `true` if new connections end at once.
    is_down: bool,
    /// The text from which on all that the server sends on a connection is lost.
    marker: Option<&'static str>,
    /// Time for which the server does not notice a cut.
    lingers: Duration,
}

const CLEAR: Air = Air {
    cuts: 0,
    swallows: false,
    stalls: false,
    is_deaf: false,
    is_down: false,
    marker: None,
    lingers: Duration::ZERO,
};

/// A proxy of a server. It ends with its last clone.
pub(crate) struct Proxy {
    address: SocketAddr,
    air: watch::Sender<Air>,
    /// The number of bytes that the server has sent.
    sent: Arc<AtomicU64>,
    /// The number of connections that were made.
    connections: Arc<AtomicU64>,
}

impl Proxy {
    /// Starts a proxy of the server at this address.
    pub(crate) async fn start(server: (String, u16)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (air, listening) = watch::channel(CLEAR);
        let sent = Arc::new(AtomicU64::new(0));
        let (counter, connections) = (Arc::clone(&sent), Arc::new(AtomicU64::new(0)));
        let connected = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if listening.borrow().is_down {
                    continue;
                }
                let server = TcpStream::connect(server.clone()).await;
                if let Ok(server) = server {
                    connected.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(carry(client, server, listening.clone(), Arc::clone(&counter)));
                }
            }
        });
        Self { address, air, sent, connections }
    }

    /// Returns the URL of the proxy, with credentials if there are any, as in `user:password@`.
    pub(crate) fn url(&self, credentials: &str) -> String {
        format!("nats://{credentials}{}", self.address)
    }

    /// Loses all that the servers send from now on, until the next cut.
    pub(crate) fn swallow(&self) {
        self.air.send_modify(|air| air.swallows = true);
    }

    /// Cuts all connections. New ones work.
    pub(crate) fn cut(&self) {
        self.air.send_modify(|air| *air = Air { cuts: air.cuts + 1, ..CLEAR });
    }

    /// Cuts all connections, of which the server learns after this time.
    pub(crate) fn cut_unnoticed(&self, lingers: Duration) {
        self.air.send_modify(|air| *air = Air { cuts: air.cuts + 1, lingers, ..CLEAR });
    }

    /// Cuts all connections and refuses new ones until the next cut.
    pub(crate) fn go_down(&self) {
        self.air.send_modify(|air| *air = Air { cuts: air.cuts + 1, is_down: true, ..CLEAR });
    }

    /// Cuts all connections. On new ones, all is lost from the piece on in which the server sends
    /// this text, until the next cut.
    pub(crate) fn cut_and_swallow_from(&self, marker: &'static str) {
        self.air.send_modify(|air| *air = Air { cuts: air.cuts + 1, marker: Some(marker), ..CLEAR });
    }

    /// Loses all that the clients send from now on, until the next cut.
    pub(crate) fn deafen(&self) {
        self.air.send_modify(|air| air.is_deaf = true);
    }

    /// Reads nothing more from the servers, or goes on.
    pub(crate) fn stall(&self, stalls: bool) {
        self.air.send_modify(|air| air.stalls = stalls);
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, mut air: watch::Receiver<Air>, sent: Arc<AtomicU64>) {
    let cuts = air.borrow_and_update().cuts;
    let (now, mut flowing) = (air.clone(), air.clone());
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let down = async {
        let (mut buffer, mut is_lost) = (vec![0; 65_536], false);
        while let Ok(size @ 1..) = from_server.read(&mut buffer).await {
            sent.fetch_add(size as u64, Ordering::Relaxed);
            let _ = flowing.wait_for(|air| !air.stalls).await;
            let Air { marker, swallows, .. } = *now.borrow();
            is_lost |= marker.is_some_and(|marker| contains(&buffer[..size], marker));
            if !swallows && !is_lost && to_client.write_all(&buffer[..size]).await.is_err() {
                return;
            }
        }
    };
    let up = async {
        let mut buffer = vec![0; 65_536];
        while let Ok(size @ 1..) = from_client.read(&mut buffer).await {
            let is_deaf = now.borrow().is_deaf;
            if !is_deaf && to_server.write_all(&buffer[..size]).await.is_err() {
                return;
            }
        }
    };
    let lingers = tokio::select! {
        air = air.wait_for(|air| air.cuts != cuts) => air.map_or(Duration::ZERO, |air| air.lingers),
        () = down => Duration::ZERO,
        () = up => Duration::ZERO,
    };
    drop(client);
    tokio::time::sleep(lingers).await;
}

fn contains(data: &[u8], text: &str) -> bool {
    data.windows(text.len()).any(|part| part == text.as_bytes())
}

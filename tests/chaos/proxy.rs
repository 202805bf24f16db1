//! A TCP proxy that misbehaves on demand.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::history::Event;
use crate::plan::Air;
use crate::recipe::chance;
use crate::recorder::Recorder;

const BUFFER: usize = 16 * 1024;
/// Throughput of slow connections, in bytes per second.
const SLOW: u64 = 64 * 1024;

/// A listener that passes connections on to a server. Dropping it closes all of them.
#[derive(Debug)]
pub(crate) struct Proxy {
    air: watch::Sender<Air>,
    _connections: JoinSet<()>,
}

impl Proxy {
    /// Starts to listen at `address` for connections to the port `server` of 127.0.0.1.
    pub(crate) async fn start(address: SocketAddr, server: u16, seed: u64, recorder: Recorder) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (air, state) = watch::channel(Air::Clear);
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut open = JoinSet::new();
            let mut number = 0_u64;
            while let Ok((client, _)) = listener.accept().await {
                number += 1;
                let chance = chance(&(seed, "connection", number));
                open.spawn(pass(client, server, state.clone(), chance, recorder.clone()));
                while open.try_join_next().is_some() {}
            }
        });
        Ok(Self { air, _connections: connections })
    }

    /// Changes the state of all connections.
    pub(crate) fn set(&self, air: Air) {
        self.air.send_replace(air);
    }
}

/// The end of one direction of a connection.
enum End {
    Closed,
    /// By the proxy.
    Reset,
}

/// Passes one connection on until either side closes it, or the proxy resets it.
async fn pass(client: TcpStream, server: u16, air: watch::Receiver<Air>, mut chance: Rng, recorder: Recorder) {
    let address = SocketAddr::from(([127, 0, 0, 1], server));
    // Without a server the client's connection ends at once.
    let Ok(server) = TcpStream::connect(address).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = Direction { air: air.clone(), chance: chance.fork(), left: None }.pump(from_client, to_server);
    let back = Direction { air, chance, left: None }.pump(from_server, to_client);
    // Both futures keep their halves until here, so the connections end together.
    let (there, back) = (std::pin::pin!(there), std::pin::pin!(back));
    let end = match futures_util::future::select(there, back).await {
        futures_util::future::Either::Left((end, _)) | futures_util::future::Either::Right((end, _)) => end,
    };
    if let End::Reset = end {
        recorder.note(Event::Fault { name: "reset".to_owned() });
    }
}

/// One direction of a connection.
struct Direction {
    air: watch::Receiver<Air>,
    chance: Rng,
    /// Bytes until the connection is reset, while connections are reset.
    left: Option<usize>,
}

impl Direction {
    async fn pump(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> End {
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                _ = self.air.changed() => continue,
            };
            let Ok(read @ 1..) = read else { return End::Closed };
            let air = self.air.borrow_and_update().clone();
            match self.carry(&air, &buffer[..read], &mut to).await {
                Ok(true) => {}
                Ok(false) => {
                    // Without lingering, dropping the socket sends a reset instead of an end.
                    let _ = to.as_ref().set_zero_linger();
                    let _ = from.as_ref().set_zero_linger();
                    return if matches!(air, Air::Cuts(_)) { End::Reset } else { End::Closed };
                }
                Err(_) => return End::Closed,
            }
        }
    }

    /// Writes the data as the state says; returns `false` if the connection is to be reset.
    async fn carry(&mut self, air: &Air, data: &[u8], to: &mut OwnedWriteHalf) -> io::Result<bool> {
        match air {
            Air::Clear => to.write_all(data).await?,
            Air::Cuts(range) => {
                let left = self.left.take().unwrap_or_else(|| self.chance.usize(range.clone()));
                to.write_all(&data[..data.len().min(left)]).await?;
                self.left = Some(left.saturating_sub(data.len()));
                return Ok(data.len() < left);
            }
            Air::Slices(most) => {
                let mut rest = data;
                while !rest.is_empty() {
                    let piece;
                    (piece, rest) = rest.split_at(self.chance.usize(1..=*most).min(rest.len()));
                    to.write_all(piece).await?;
                    tokio::task::yield_now().await;
                }
            }
            Air::Slow(delay) => {
                let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
                let delay = self.chance.u64(delay.clone()) + 1000 * size / SLOW;
                tokio::time::sleep(Duration::from_millis(delay)).await;
                to.write_all(data).await?;
            }
            Air::Hole => {
                // What was swallowed is missing from then on.
                let _ = self.air.wait_for(|air| *air != Air::Hole).await;
                return Ok(false);
            }
        }
        Ok(true)
    }
}

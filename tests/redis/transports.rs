//! Connections that are not over TCP: a socket file, anything that moves bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use traced_broker::Subscription;
use traced_broker::adapters::redis::{Redis, RedisBuilder};
use traced_broker::driver::{Driver, Source};

use crate::harness::*;

/// A server with settings of its own; it ends with the test.
pub(crate) struct OwnServer {
    directory: TempDir,
    process: Child,
}

impl OwnServer {
    /// Starts a server that listens on a socket file, and as its arguments say.
    pub(crate) fn start(directory: TempDir, arguments: &[&str]) -> Self {
        let socket = directory.path().join("socket");
        let mut command = Command::new("redis-server");
        command.arg("--unixsocket").arg(&socket).args(["--port", "0", "--save", ""]).args(arguments);
        command.arg("--dir").arg(directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.spawn().unwrap();
        let began = Instant::now();
        // The file appears before the server listens.
        while UnixStream::connect(&socket).is_err() {
            assert!(began.elapsed() < SOON);
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { directory, process }
    }

    pub(crate) fn client(&self) -> ::redis::Client {
        client_of(&self.directory.path().join("socket"))
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn client_of(socket: &Path) -> ::redis::Client {
    ::redis::Client::open(format!("redis+unix://{}", socket.display())).unwrap()
}

/// Publishes, consumes and reads, also after all connections were cut.
pub(crate) async fn works(builder: RedisBuilder, server: &OwnServer) {
    let broker = builder.claim_idle(Duration::from_millis(400)).connect().await.unwrap();
    let topic = topic("transport");
    broker.declare(&topic).await.unwrap();
    let mut group = subscribe(&broker, &topic, "g").await;
    let mut reader = broker.subscribe(&Subscription::new(&*topic)).await.unwrap();
    publish_numbers(&broker, &topic, 0..3).await;
    let drain_both = async |group: &mut Source, reader: &mut Source, expected: Vec<String>| {
        assert_eq!(drain(group, expected.len()).await, expected);
        assert_eq!(drain(reader, expected.len()).await, expected);
    };
    drain_both(&mut group, &mut reader, numbers(0..3)).await;
    let large = vec![b'x'; 3_000_000];
    publish(&broker, &topic, message(large.clone())).await.unwrap();
    drain_both(&mut group, &mut reader, vec![String::from_utf8(large).unwrap()]).await;
    let mut connection = server.client().get_multiplexed_async_connection().await.unwrap();
    let mut kill = ::redis::cmd("CLIENT");
    let _: i64 =
        kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes").query_async(&mut connection).await.unwrap();
    tokio::time::sleep(WHILE).await;
    publish_numbers(&broker, &topic, 3..6).await;
    drain_both(&mut group, &mut reader, numbers(3..6)).await;
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_over_a_socket_file() {
    let server = OwnServer::start(tempfile::tempdir().unwrap(), &[]);
    let broker = Redis::from_client(server.client()).connect().await.unwrap();
    assert!(broker.identity().server_address.as_ref().unwrap().ends_with("/socket"));
    assert_eq!(broker.identity().server_port, None);
    broker.close().await.unwrap();
    works(Redis::from_client(server.client()), &server).await;
}

/// Number of bytes after which the peer of the next test gives up.
const FLOOD: usize = 512 * 1024 * 1024;

/// Answers the commands of a connection, and the first that reads with an answer without end.
/// Counts the bytes of it that were taken.
fn flood(stream: UnixStream, taken: &AtomicUsize) -> std::io::Result<()> {
    let mut commands = BufReader::new(stream.try_clone()?);
    let mut answers = stream;
    let line = |commands: &mut BufReader<UnixStream>| -> std::io::Result<usize> {
        let mut line = String::new();
        commands.read_line(&mut line)?;
        line.get(1..).and_then(|number| number.trim().parse().ok()).ok_or_else(|| std::io::ErrorKind::Other.into())
    };
    loop {
        let mut words = Vec::new();
        for _ in 0..line(&mut commands)? {
            let mut word = vec![0; line(&mut commands)? + 2];
            commands.read_exact(&mut word)?;
            words.push(String::from_utf8_lossy(&word[..word.len() - 2]).to_uppercase());
        }
        match words[0].as_str() {
            "XREAD" => break,
            "XINFO" => answers.write_all(b"-ERR no such key\r\n")?,
            "HELLO" => answers.write_all(b"%1\r\n+proto\r\n:3\r\n")?,
            _ => answers.write_all(b"+OK\r\n")?,
        }
    }
    answers.write_all(b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\na\r\n$1099511627776\r\n")?;
    let piece = vec![b'x'; 64 * 1024];
    while taken.fetch_add(piece.len(), Ordering::Relaxed) < FLOOD {
        answers.write_all(&piece)?;
    }
    Ok(())
}

/// A server that announces more than an answer may have is refused before the rest comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_a_bound_over_a_socket_file() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let taken: &'static AtomicUsize = Box::leak(Box::default());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || flood(stream, taken));
        }
    });
    let broker = Redis::from_client(client_of(&socket)).connect().await.unwrap();
    let mut source = broker.subscribe(&Subscription::new("s")).await.unwrap();
    let error = next_within(&mut source, SOON).await.expect("an error").unwrap_err();
    drop(source);
    let taken = taken.load(Ordering::Relaxed);
    assert!(taken < 64 * 1024 * 1024, "{} MiB were taken: {error:?}", taken >> 20);
    assert!(format!("{error:?}").contains("longer than 1 GiB"), "{error:?}");
}

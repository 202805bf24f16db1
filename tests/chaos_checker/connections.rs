//! The proxy, with an echo behind it.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::history::Event;
use crate::plan::Air;
use crate::proxy::Proxy;
use crate::recorder::Recorder;

const SOON: Duration = Duration::from_secs(10);

/// Starts an echo with a proxy before it. Returns the proxy, its port and the history.
async fn proxied() -> (Proxy, u16, Recorder) {
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = echo.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = connection.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let recorder = Recorder::in_memory();
    (Proxy::start(([127, 0, 0, 1], free).into(), server, 7, recorder.clone()).await.unwrap(), free, recorder)
}

/// Sends bytes and returns the number of bytes that come back unchanged before the connection ends.
async fn echoed(port: u16, size: usize) -> usize {
    let sent: Vec<u8> = (0..size).map(|number| u8::try_from(number % 251).unwrap()).collect();
    let (mut read, mut write) = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
    let own = sent.clone();
    let writing = tokio::spawn(async move {
        let _ = write.write_all(&own).await;
        write
    });
    let mut received = vec![0; size];
    let mut count = 0;
    while count < size {
        match timeout(SOON, read.read(&mut received[count..])).await.expect("an answer") {
            Ok(read @ 1..) => count += read,
            _ => break,
        }
    }
    writing.abort();
    assert_eq!(received[..count], sent[..count], "bytes are cut off, never changed");
    count
}

#[tokio::test]
async fn everything_passes_whole_and_in_pieces() {
    let (proxy, port, recorder) = proxied().await;
    for air in [Air::Clear, Air::Slices(200), Air::Slow(1..5)] {
        proxy.set(air);
        assert_eq!(echoed(port, 30_000).await, 30_000);
    }
    assert_eq!(recorder.len(), 0, "no connection was reset");
}

#[tokio::test]
async fn connections_are_cut_and_counted() {
    let (proxy, port, recorder) = proxied().await;
    proxy.set(Air::Cuts(1_000..20_000));
    for _ in 0..3 {
        assert!(echoed(port, 100_000).await < 20_000);
    }
    timeout(SOON, async {
        while recorder.len() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("each reset is noted");
    assert!(recorder.snapshot().iter().all(|record| matches!(record.event, Event::Fault { .. })));
    proxy.set(Air::Clear);
    assert_eq!(echoed(port, 100_000).await, 100_000);
}

#[tokio::test]
async fn a_hole_swallows_without_closing() {
    let (proxy, port, _recorder) = proxied().await;
    proxy.set(Air::Hole);
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    connection.write_all(b"lost").await.unwrap();
    let mut answer = [0; 4];
    let silence = timeout(Duration::from_millis(300), connection.read(&mut answer)).await;
    assert!(silence.is_err(), "neither an answer nor an end: {silence:?}");
    proxy.set(Air::Clear);
    let end = timeout(SOON, connection.read(&mut answer)).await.expect("it ends with the hole");
    assert!(!matches!(end, Ok(1..)), "what was swallowed does not appear: {end:?}");
}

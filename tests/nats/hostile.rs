//! Messages from a producer that violates the protocol, written directly to a socket, without any
//! client.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use traced_broker::driver::{Disposition, Driver, Inbound};
use traced_broker::{
    BrokerUrl, HandlerError, Received, Start, Subscription, Topic, Traced, TracedBroker, TracedBrokerExt,
};

use crate::kit::{self, ack, assert_quiet, message, next_message, publish, publish_numbers, settle, text, topic};
use crate::support::{Kind, shared};

/// Writes messages unchanged.
struct Socket(BufReader<TcpStream>);

impl Socket {
    async fn open() -> Self {
        let address = BrokerUrl::parse(shared(Kind::Nats)).unwrap().hosts(4222).remove(0);
        let mut socket = Self(BufReader::new(TcpStream::connect(address).await.unwrap()));
        let options = br#"CONNECT {"verbose":false,"pedantic":false,"headers":true,"name":"hostile"}"#;
        socket.0.write_all(options).await.unwrap();
        socket.0.write_all(b"\r\n").await.unwrap();
        socket
    }

    async fn publish(&mut self, subject: &str, block: &[u8], payload: &str) {
        let sizes = format!("HPUB {subject} {} {}\r\n", block.len(), block.len() + payload.len());
        for part in [sizes.as_bytes(), block, payload.as_bytes(), b"\r\nPING\r\n"] {
            self.0.write_all(part).await.unwrap();
        }
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.unwrap();
            assert!(!line.starts_with("-ERR"), "{line}");
            if line.starts_with("PONG") {
                return;
            }
        }
    }
}

/// The readable headers of a block.
type Readable<'a> = Vec<(&'a str, &'a [u8])>;

/// Returns header blocks that the client cannot read, each with its readable headers and the number
/// of unreadable lines.
fn bad_blocks() -> Vec<(&'static [u8], Readable<'static>, u32)> {
    vec![
        (b"NATS/1.0\r\ngood: 1\r\nno colon\r\n\r\n", vec![("good", b"1")], 1),
        (b"NATS/1.0\r\ngood: 1\r\nbytes: \xff\xfe\r\n\r\n", vec![("good", b"1"), ("bytes", b"\xff\xfe")], 0),
        (b"NATS/1.0\r\n\xff\xfe: x\r\ngood: 1\r\n\r\n", vec![("good", b"1")], 1),
        (b"NATS/1.0\r\nbad name: x\r\n\r\n", vec![("bad name", b"x")], 0),
        (b"NATS/1.0\r\n folded: first\r\ngood: 1\r\n\r\n", vec![("good", b"1")], 1),
        (b"NATS/1.0\r\ncr: a\rb\r\n\r\n", vec![("cr", b"a\rb")], 0),
        (b"NATS/1.0 not a status\r\ngood: 1\r\n\r\n", vec![("good", b"1")], 0),
        (b"HTTP/1.1\r\ngood: 1\r\n\r\n", vec![("good", b"1")], 2),
        (b"\r\n\r\n", vec![], 1),
    ]
}

fn headers(inbound: &Inbound) -> Vec<(String, Vec<u8>)> {
    let mut headers: Vec<_> = inbound.headers.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    headers.sort();
    headers
}

fn owned(headers: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    let mut headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
    headers.sort();
    headers
}

#[tokio::test]
async fn each_bad_block_is_delivered_with_what_can_be_read_of_it() {
    let checks = bad_blocks().into_iter().map(|(block, left, unreadable)| check_bad_block(block, left, unreadable));
    futures_util::future::join_all(checks).await;
}

async fn check_bad_block(block: &[u8], left: Vec<(&str, &[u8])>, unreadable: u32) {
    let nats = kit::connect_with("?ack_wait=1000").await;
    let topic = topic("bad");
    publish_numbers(&nats, &topic, 0..3).await;
    let mut socket = Socket::open().await;
    socket.publish(&topic, block, "bad").await;
    publish_numbers(&nats, &topic, 3..6).await;
    let mut source = nats.subscribe(&Subscription::new(&*topic).group("workers")).await.unwrap();
    let mut seen = BTreeMap::new();
    while seen.len() < 7 {
        let inbound = next_message(&mut source).await;
        if text(&inbound) == "bad" {
            assert_eq!(headers(&inbound), owned(&left), "{}", block.escape_ascii());
            assert_eq!(inbound.unreadable_headers, unreadable, "{}", block.escape_ascii());
            assert_eq!((inbound.offset, inbound.attempt), (Some(4), 1));
            assert!(inbound.timestamp.is_some());
        }
        *seen.entry(text(&inbound).to_owned()).or_insert(0) += 1;
        // Deliveries from before the break can no longer be settled, and are redelivered.
        let _ = settle(inbound, Disposition::Ack).await;
    }
    // No message is left over, and the connection survives.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    while let Some(Ok(inbound)) = kit::next_within(&mut source, kit::WHILE).await {
        assert_ne!(text(&inbound), "bad", "{} came twice", block.escape_ascii());
        ack(inbound).await;
    }
    assert_settled(&topic, "workers").await;
}

async fn assert_settled(topic: &Topic, group: &str) {
    let context = async_nats::jetstream::new(kit::raw().await);
    let stream = context.get_stream(topic.replace('.', "~")).await.unwrap();
    for _ in 0..100 {
        let info = stream.consumer_info(group).await.unwrap();
        if (info.num_ack_pending, info.num_pending) == (0, 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{group} has not settled everything");
}

#[tokio::test]
async fn a_bad_message_is_held_retried_and_given_up_as_any_other() {
    let nats = kit::connect_with("?ack_wait=1500").await;
    let topic = topic("handled");
    nats.declare(&topic).await.unwrap();
    let mut source = nats.subscribe(&Subscription::new(&*topic).group("workers")).await.unwrap();
    let mut socket = Socket::open().await;
    socket.publish(&topic, b"NATS/1.0\r\nmessage-key: k\r\nNats-Msg-Id: i\r\nx\r\n\r\n", "bad").await;
    let inbound = next_message(&mut source).await;
    assert_eq!((text(&inbound), inbound.key.as_deref(), inbound.id.as_deref()), ("bad", Some(&b"k"[..]), Some("i")));
    // Longer than the acknowledgement timeout: the message is not redelivered, which would break
    // the connection again.
    tokio::time::sleep(Duration::from_millis(4000)).await;
    assert_quiet(&mut source).await;
    settle(inbound, Disposition::Retry(Duration::ZERO)).await.unwrap();
    let inbound = next_message(&mut source).await;
    assert_eq!((text(&inbound), inbound.attempt), ("bad", 2));
    let retried = std::time::Instant::now();
    settle(inbound, Disposition::Retry(Duration::from_millis(800))).await.unwrap();
    publish(&nats, &topic, message("good")).await.unwrap();
    let good = next_message(&mut source).await;
    assert_eq!(text(&good), "good");
    ack(good).await;
    let inbound = next_message(&mut source).await;
    assert_eq!((text(&inbound), inbound.attempt), ("bad", 3));
    assert!(retried.elapsed() >= Duration::from_millis(800));
    settle(inbound, Disposition::Discard).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2000)).await;
    assert_quiet(&mut source).await;
    assert_settled(&topic, "workers").await;
}

#[tokio::test]
async fn blocks_that_are_odd_but_legal_are_delivered_as_usual() {
    let nats = kit::connect().await;
    let topic = topic("odd");
    nats.declare(&topic).await.unwrap();
    let mut source = nats.subscribe(&Subscription::new(&*topic).group("workers")).await.unwrap();
    let mut socket = Socket::open().await;
    let long = [b"NATS/1.0\r\nlong: ".as_slice(), &[b'x'; 60_000], b"\r\n\r\n"].concat();
    let odd: [(&[u8], Readable<'_>); 7] = [
        // A status on a message does not come from the server, and must not be treated as such.
        (b"NATS/1.0 409 Consumer Deleted\r\n\r\n", vec![]),
        (b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 1000\r\n\r\n", vec![]),
        (b"NATS/1.0 100 Idle Heartbeat\r\na: 1\r\n\r\n", vec![("a", b"1")]),
        (b"NATS/1.0 503 No Responders\r\n\r\n", vec![]),
        (b"NATS/1.0\r\na: 1\r\n 2\r\na: 3\r\n\r\n", vec![("a", b"1 2"), ("a", b"3")]),
        (b"NATS/1.0\r\n: no name\r\nTraceParent:x\r\n\r\n", vec![("", b"no name"), ("TraceParent", b"x")]),
        (&long, vec![("long", &[b'x'; 60_000])]),
    ];
    for (block, left) in odd {
        socket.publish(&topic, block, "odd").await;
        let inbound = kit::next(&mut source).await;
        assert_eq!((headers(&inbound), text(&inbound)), (owned(&left), "odd"));
        assert_eq!((inbound.attempt, inbound.unreadable_headers), (1, 0));
        ack(inbound).await;
    }
}

#[tokio::test]
async fn a_stream_full_of_bad_messages_is_got_through() {
    let nats = kit::connect_with("?ack_wait=2000").await;
    let topic = topic("full");
    nats.declare(&topic).await.unwrap();
    let mut socket = Socket::open().await;
    let blocks = bad_blocks();
    let mut expected = BTreeMap::new();
    for number in 0..60 {
        // Every third message is bad.
        let (block, _, _) = &blocks[number % blocks.len()];
        let block = if number % 3 == 0 { block } else { &b"NATS/1.0\r\na: b\r\n\r\n"[..] };
        socket.publish(&topic, block, &number.to_string()).await;
        expected.insert(number.to_string(), 1);
    }
    let mut source = nats.subscribe(&Subscription::new(&*topic).group("workers")).await.unwrap();
    let mut settled = BTreeMap::new();
    while settled.len() < 60 {
        let inbound = next_message(&mut source).await;
        let name = text(&inbound).to_owned();
        if settle(inbound, Disposition::Ack).await.is_ok() {
            *settled.entry(name).or_insert(0) += 1;
        }
    }
    assert_eq!(settled, expected, "each is settled once");
    assert_settled(&topic, "workers").await;
    publish(&nats, &topic, message("after")).await.unwrap();
    assert_eq!(text(&next_message(&mut source).await), "after");
}

#[tokio::test]
async fn readers_without_a_group_get_past_bad_messages_too() {
    let nats = kit::connect_with("?ack_wait=1000").await;
    let topic = topic("reader");
    nats.declare(&topic).await.unwrap();
    let mut socket = Socket::open().await;
    socket.publish(&topic, b"NATS/1.0\r\nx\r\n\r\n", "bad").await;
    publish_numbers(&nats, &topic, 0..2).await;
    let mut source = nats.subscribe(&Subscription::new(&*topic).start(Start::Earliest)).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let inbound = next_message(&mut source).await;
        let name = text(&inbound).to_owned();
        if settle(inbound, Disposition::Ack).await.is_ok() {
            seen.push(name);
        }
    }
    seen.sort();
    assert_eq!(seen, ["0", "1", "bad"]);
}

#[tokio::test]
async fn publishing_goes_on_while_a_bad_message_breaks_the_reading_connection() {
    let nats = kit::connect().await;
    let topic = topic("apart");
    let other = topic_beside();
    nats.declare(&topic).await.unwrap();
    nats.declare(&other).await.unwrap();
    let mut source = nats.subscribe(&Subscription::new(&*topic).group("workers")).await.unwrap();
    let mut socket = Socket::open().await;
    let publishing = async {
        for number in 0..200 {
            publish(&nats, &other, message(number.to_string())).await.unwrap();
        }
    };
    let breaking = async {
        for _ in 0..5 {
            socket.publish(&topic, b"NATS/1.0\r\nx\r\n\r\n", "bad").await;
            ack(next_message(&mut source).await).await;
        }
    };
    tokio::join!(publishing, breaking);
}

fn topic_beside() -> Topic {
    topic("beside")
}

#[tokio::test]
async fn core_nats_loses_a_bad_message_and_listens_on() {
    let nats = kit::connect_with("?mode=core").await;
    let topic = topic("core");
    let listening = Subscription::new(&*topic).at_most_once();
    let mut source = nats.subscribe(&listening).await.unwrap();
    let mut socket = Socket::open().await;
    for (block, _, _) in bad_blocks() {
        socket.publish(&topic, block, "bad").await;
        // Until the subscription is restored, core NATS discards published messages.
        loop {
            socket.publish(&topic, b"NATS/1.0\r\na: b\r\n\r\n", "good").await;
            if let Some(Ok(inbound)) = kit::next_within(&mut source, Duration::from_millis(50)).await {
                assert_eq!(text(&inbound), "good");
                break;
            }
        }
        while kit::next_within(&mut source, Duration::from_millis(50)).await.is_some() {}
    }
}

/// The client cannot write such headers; the dead letter arrives all the same, after one run of the
/// handler.
#[tokio::test]
async fn a_message_with_headers_that_cannot_be_written_is_buried() {
    let topic = topic("buried");
    let dead = format!("{}.dead", &*topic);
    let broker = Traced::new(kit::connect().await);
    let workers = || Subscription::new(&*topic).group("workers").dead_letter(&dead);
    drop(broker.subscribe(workers()).await.unwrap());
    let mut desk = broker.subscribe(Subscription::new(&dead).group("desk")).await.unwrap();
    let blocks: [(&[u8], &str, &str); 4] = [
        (b"NATS/1.0\r\nbad name: x\r\n\r\n", "bad-name", "x"),
        (b"NATS/1.0\r\nlatin: caf\xe9\r\n\r\n", "encoded-latin", "caf%E9"),
        (b"NATS/1.0\r\n: x\r\n\r\n", "-", "x"),
        (b"NATS/1.0\r\ncr: a\rb\r\n\r\n", "encoded-cr", "a%0Db"),
    ];
    for (block, name, value) in blocks {
        Socket::open().await.publish(&topic, block, "odd").await;
        let runs = AtomicU32::new(0);
        let handler = async |_: Received| {
            runs.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(HandlerError::reject("odd"))
        };
        let consumer = broker.consume(workers(), handler).subscribed().await.unwrap();
        // The member before may still be leaving. If the message goes to it, its client cannot read
        // it either, and the server redelivers it after `ack_wait`.
        let patience = kit::SOON * 6;
        let mut letter = None;
        consumer
            .run_until(async { letter = tokio::time::timeout(patience, desk.next()).await.ok().flatten() })
            .await
            .unwrap();
        let letter = letter.expect("a dead letter").unwrap();
        assert_eq!(letter.message().headers().get_str(name), Some(value), "{}", block.escape_ascii());
        assert_eq!(runs.into_inner(), 1);
        letter.ack().await.unwrap();
    }
}

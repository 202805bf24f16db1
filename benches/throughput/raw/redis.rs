//! The best loops with the client crate `redis`. Each pipeline has half of the publishes in flight,
//! so that one is on its way while the server works on the other. Reads take 256 entries; their
//! acknowledgements are sent likewise, half of those in flight per command.

use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, Value, cmd};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

const READ: usize = 256;

/// Publishes, confirmed. With `headers`, each message has its own `traceparent`.
pub(crate) async fn publish(
    url: &str,
    topic: &str,
    messages: usize,
    payload: usize,
    in_flight: usize,
    headers: bool,
) -> Duration {
    let connection = connect(url).await;
    let payload = vec![b'x'; payload];
    let begun = Instant::now();
    let mut flights = FuturesUnordered::new();
    let size = (in_flight / 2).max(1);
    for first in (0..messages).step_by(size) {
        if flights.len() * size >= in_flight {
            confirm(flights.next().await);
        }
        let count = size.min(messages - first);
        let mut pipeline = Pipeline::with_capacity(count);
        for number in first..first + count {
            pipeline.add_command(append(topic, number, &payload, headers));
        }
        let mut connection = connection.clone();
        flights.push(async move { connection.send_packed_commands(&pipeline, 0, count).await });
    }
    while !flights.is_empty() {
        confirm(flights.next().await);
    }
    begun.elapsed()
}

/// Consumes as a member of the group and acknowledges all messages.
pub(crate) async fn consume(url: &str, topic: &str, group: &str, messages: usize, in_flight: usize) -> Duration {
    let (mut reader, settler) = (connect(url).await, connect(url).await);
    let mut read = cmd("XREADGROUP");
    read.arg("GROUP").arg(group).arg("raw").arg("COUNT").arg(READ).arg("BLOCK").arg(1000);
    read.arg("STREAMS").arg(topic).arg(">");
    let begun = Instant::now();
    let mut settling = FuturesUnordered::new();
    let size = (in_flight / 2).clamp(1, READ);
    let mut received = 0;
    while received < messages {
        let ids = ids(reader.send_packed_command(&read).await.expect("reads"));
        received += ids.len();
        for ids in ids.chunks(size) {
            if (settling.len() + 1) * size > in_flight {
                acknowledged(settling.next().await.expect("one is in flight"));
            }
            let mut acknowledge = Cmd::with_capacity(3 + ids.len(), 24 * ids.len());
            acknowledge.arg("XACK").arg(topic).arg(group).arg(ids);
            let mut settler = settler.clone();
            let count = ids.len();
            // A task, so that the acknowledgement is on its way while the next entries are read.
            let answer = tokio::spawn(async move { settler.send_packed_command(&acknowledge).await });
            settling.push(async move { (answer.await.expect("no panic"), count) });
        }
    }
    while let Some(answer) = settling.next().await {
        acknowledged(answer);
    }
    begun.elapsed()
}

async fn connect(url: &str) -> MultiplexedConnection {
    let info = Client::open(url).expect("a URL").get_connection_info().clone();
    let settings = info.tcp_settings().clone().set_nodelay(true);
    let client = Client::open(info.set_tcp_settings(settings)).expect("a client");
    let options = AsyncConnectionConfig::new().set_response_timeout(None).set_write_backpressure_boundary(64 * 1024);
    client.get_multiplexed_async_connection_with_config(&options).await.expect("connects")
}

fn append(topic: &str, number: usize, payload: &[u8], headers: bool) -> Cmd {
    let mut command = Cmd::with_capacity(7, payload.len() + topic.len() + 96);
    command.arg("XADD").arg(topic).arg("*").arg("payload").arg(payload);
    if headers {
        let id = number + 1;
        command.arg("traceparent").arg(format!("00-{id:032x}-{id:016x}-01"));
    }
    command
}

fn confirm(answers: Option<::redis::RedisResult<Vec<Value>>>) {
    let answers = answers.expect("one is in flight").expect("the server answers");
    assert!(answers.iter().all(|answer| matches!(answer, Value::BulkString(_))), "every message is stored");
}

fn ids(answer: Value) -> Vec<Vec<u8>> {
    let list = |value| if let Value::Array(items) = value { items } else { Vec::new() };
    let entries = list(answer).into_iter().next().and_then(|stream| list(stream).pop()).map(list).unwrap_or_default();
    let mut ids = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut parts = list(entry).into_iter();
        if let (Some(Value::BulkString(id)), Some(fields)) = (parts.next(), parts.next()) {
            std::hint::black_box(fields);
            ids.push(id);
        }
    }
    ids
}

fn acknowledged((answer, count): (::redis::RedisResult<Value>, usize)) {
    let answer = answer.expect("the server answers");
    assert_eq!(answer, Value::Int(i64::try_from(count).expect("small")), "every message is acknowledged");
}

//! Shared code of these tests.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, cmd};
use bytes::Bytes;
use tokio::time::timeout;
use traced_broker::adapters::redis::Redis;
use traced_broker::driver::{Disposition, Driver, DriverExt, Inbound, Outbound, Source};
use traced_broker::{BrokerUrl, Receipt, Result, Subscription, Topic};

use crate::support::{Kind, Server, shared};

/// Maximum duration of any expected event.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Time without an event after which a test concludes that it does not happen.
pub(crate) const WHILE: Duration = Duration::from_millis(400);

pub(crate) fn url() -> &'static str {
    shared(Kind::Redis.of_generation())
}

pub(crate) async fn broker() -> Redis {
    broker_with("").await
}

/// Connects with options such as `?maxlen=5`.
pub(crate) async fn broker_with(options: &str) -> Redis {
    connect(&format!("{}{options}", url())).await.unwrap()
}

pub(crate) async fn connect(url: &str) -> Result<Redis> {
    Redis::connect(&BrokerUrl::parse(url).unwrap()).await
}

/// Starts a separate server for one test.
pub(crate) async fn server() -> Server {
    blocking(|| Server::start(Kind::Redis.of_generation())).await
}

/// Runs a blocking operation beside the code under test.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// A separate client, which inspects the server.
pub(crate) struct Raw(MultiplexedConnection);

impl Raw {
    pub(crate) async fn new() -> Self {
        Self::at(url()).await
    }

    pub(crate) async fn at(url: &str) -> Self {
        let options = AsyncConnectionConfig::new().set_response_timeout(Some(SOON)).set_connection_timeout(Some(SOON));
        Self(Client::open(url).unwrap().get_multiplexed_async_connection_with_config(&options).await.unwrap())
    }

    /// Runs a command given as words.
    pub(crate) async fn run<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = cmd(words[0]);
        command.arg(&words[1..]);
        self.call(&command).await
    }

    pub(crate) async fn call<T: FromRedisValue>(&mut self, command: &Cmd) -> T {
        command.query_async(&mut self.0).await.unwrap()
    }

    /// Runs commands together.
    pub(crate) async fn run_all<T: FromRedisValue>(&mut self, commands: &::redis::Pipeline) -> T {
        commands.query_async(&mut self.0).await.unwrap()
    }

    /// Returns the unacknowledged entries, as `XPENDING` lists them: id, consumer, idle time,
    /// deliveries.
    pub(crate) async fn pending(&mut self, topic: &Topic, group: &str) -> Vec<(String, String, u64, u32)> {
        self.run(&["XPENDING", topic, group, "-", "+", "100000"]).await
    }

    /// Returns the names of the group's consumers.
    pub(crate) async fn consumers(&mut self, topic: &Topic, group: &str) -> Vec<String> {
        let consumers: Vec<std::collections::HashMap<String, ::redis::Value>> =
            self.run(&["XINFO", "CONSUMERS", topic, group]).await;
        let name = |consumer: &std::collections::HashMap<String, ::redis::Value>| {
            ::redis::from_redis_value(consumer["name"].clone()).unwrap()
        };
        consumers.iter().map(name).collect()
    }

    /// Breaks every connection of the server except this one.
    pub(crate) async fn break_connections(&mut self) {
        let _broken: i64 = self.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    }
}

/// Returns a topic that no other test uses, in this run or another against the same server.
pub(crate) fn topic(name: &str) -> Topic {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    Topic::new(&format!("{name}.{time:x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))).unwrap()
}

pub(crate) fn message(payload: impl Into<Bytes>) -> Outbound {
    Outbound::new(payload)
}

/// Publishes and waits for the confirmation.
pub(crate) async fn publish(broker: &Redis, topic: &Topic, message: Outbound) -> Result<Receipt> {
    timeout(SOON, broker.enqueue(topic, message)).await.expect("an answer")
}

/// Publishes numbers as text, all in flight at once.
pub(crate) async fn publish_numbers(broker: &Redis, topic: &Topic, numbers: std::ops::Range<usize>) {
    let confirmations: Vec<_> = numbers.map(|number| broker.enqueue(topic, message(number.to_string()))).collect();
    for confirmation in confirmations {
        assert!(timeout(SOON, confirmation).await.expect("an answer").unwrap().confirmed);
    }
}

pub(crate) fn of_group(topic: &Topic, group: &str) -> Subscription {
    Subscription::new(&**topic).group(group)
}

pub(crate) async fn subscribe(broker: &Redis, topic: &Topic, group: &str) -> Source {
    broker.subscribe(&of_group(topic, group)).await.unwrap()
}

/// Returns the next item, or `None` if none arrives within this time.
pub(crate) async fn next_within(source: &mut Source, wait: Duration) -> Option<Result<Inbound>> {
    timeout(wait, poll_fn(|cx| source.poll_next(cx))).await.ok().map(|item| item.expect("the source has ended"))
}

/// Returns the next item, which must be a message.
pub(crate) async fn next(source: &mut Source) -> Inbound {
    next_within(source, SOON).await.expect("a message").unwrap()
}

/// Returns the next message, skipping reports of trouble.
pub(crate) async fn next_message(source: &mut Source) -> Inbound {
    loop {
        match next_within(source, SOON).await.expect("a message") {
            Ok(message) => return message,
            Err(error) => eprintln!("reported by the source: {error}"),
        }
    }
}

pub(crate) async fn nothing_comes(source: &mut Source) {
    if let Some(item) = next_within(source, WHILE).await {
        panic!("nothing should have come: {item:?}");
    }
}

pub(crate) async fn the_end(source: &mut Source) {
    while timeout(SOON, poll_fn(|cx| source.poll_next(cx))).await.expect("the source ends").is_some() {}
}

pub(crate) async fn ack(message: Inbound) -> Result<()> {
    timeout(SOON, message.handle.settle(Disposition::Ack)).await.expect("an answer")
}

pub(crate) fn text(message: &Inbound) -> String {
    String::from_utf8(message.payload.clone().unwrap().to_vec()).unwrap()
}

/// Receives and acknowledges `count` messages.
pub(crate) async fn drain(source: &mut Source, count: usize) -> Vec<String> {
    let mut payloads = Vec::with_capacity(count);
    while payloads.len() < count {
        let message = next_message(source).await;
        payloads.push(text(&message));
        ack(message).await.unwrap();
    }
    payloads
}

/// Waits until a condition holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let began = tokio::time::Instant::now();
    while !holds().await {
        assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

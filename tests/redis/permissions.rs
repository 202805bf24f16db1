//! Users with few permissions: the rules that the module documents suffice for the whole life of a
//! program, and a permission that is missing is named.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ::redis::{Value, cmd};
use traced_broker::adapters::redis::Redis;
use traced_broker::driver::{Driver, Inbound, Source};
use traced_broker::{
    Error, ErrorKind, HandlerError, Received, Result, Retry, Start, Subscription, Topic, Traced, TracedBroker as _,
    TracedBrokerExt as _,
};

use crate::harness::*;
use crate::support::Server;

const DOCUMENTATION: &str = include_str!("../../adapters/redis/mod.rs");

/// Returns the rules in the documentation, without those that a password needs.
fn documented() -> Vec<String> {
    let lines = DOCUMENTATION.lines().skip_while(|line| !line.contains("ACL SETUSER shop"));
    let block: Vec<&str> = lines.take_while(|line| !line.contains("```")).collect();
    let words = block.iter().flat_map(|line| line.trim_start_matches("//!").split_whitespace());
    let rules: Vec<String> = words.skip(3).filter(|word| !word.starts_with('>')).map(str::to_owned).collect();
    assert!(rules.len() > 8, "{rules:?}");
    rules
}

/// Makes the user `shop` with these rules, and returns the URL with it.
async fn user(server: &Server, raw: &mut Raw, rules: &[String]) -> String {
    let mut command = cmd("ACL");
    command.arg("SETUSER").arg("shop").arg("reset").arg("nopass").arg(rules);
    let _: () = raw.call(&command).await;
    server.url().replace("redis://", "redis://shop:any@") + "?claim_idle=400"
}

/// Returns the commands and keys that were refused since the last call.
async fn refused(raw: &mut Raw) -> BTreeSet<String> {
    let entries: Vec<HashMap<String, Value>> = raw.run(&["ACL", "LOG", "1000"]).await;
    let _: () = raw.run(&["ACL", "LOG", "RESET"]).await;
    let text = |entry: &HashMap<String, Value>| {
        ::redis::from_redis_value::<String>(entry["object"].clone()).unwrap().to_lowercase()
    };
    entries.iter().map(text).collect()
}

/// Adds an entry that is an hour old, so that it is trimmed once it is handled.
async fn add_old(raw: &mut Raw, topic: &str, count: usize) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut commands = ::redis::pipe();
    for number in 0..count {
        let id = format!("{}-{}", (now - Duration::from_secs(3600)).as_millis(), number + 1);
        commands.cmd("XADD").arg(topic).arg(id).arg("payload").arg("old");
    }
    let _: Vec<String> = raw.run_all(&commands).await;
}

/// Connects, creates, publishes, consumes with a retry and a dead letter, trims, and goes on after
/// its connections are cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_rules_suffice_for_a_whole_life() {
    let server = server().await;
    let mut raw = Raw::at(&server.url()).await;
    let url = user(&server, &mut raw, &documented()).await;
    let _: () = raw.run(&["ACL", "LOG", "RESET"]).await;
    let redis = connect(&url).await.unwrap();
    let (orders, dead) = (Topic::new("orders").unwrap(), Topic::new("orders.dead").unwrap());
    redis.declare(&orders).await.unwrap();
    add_old(&mut raw, "orders", 500).await;
    let mut reader = redis.subscribe(&Subscription::new("orders")).await.unwrap();
    let mut desk = subscribe(&redis, &dead, "desk").await;
    let broker = Traced::new(redis);
    let handled = AtomicU32::new(0);
    let handler = async |message: Received| {
        if message.payload() == "bad" {
            return Err(HandlerError::retry("no stock"));
        }
        handled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let subscription = Subscription::new("orders").group("workers");
    let consume = broker.consume(subscription, handler).retry(Retry::immediate(3)).dead_letter("orders.dead");
    let life = async {
        broker.publish("orders", traced_broker::Message::new("bad")).await.unwrap();
        assert_eq!(text(&next_message(&mut desk).await), "bad");
        eventually("the old ones are trimmed", || async {
            Raw::at(&server.url()).await.run::<usize>(&["XLEN", "orders"]).await < 200
        })
        .await;
        Raw::at(&server.url()).await.break_connections().await;
        let began = std::time::Instant::now();
        while broker.publish("orders", traced_broker::Message::new("good")).await.is_err() {
            assert!(began.elapsed() < SOON);
        }
        eventually("it goes on after the cut", || async { handled.load(Ordering::Relaxed) > 500 }).await;
        while text(&next_message(&mut reader).await) != "good" {}
    };
    consume.run_until(life).await.unwrap();
    let moved = Subscription::new("orders").group("workers");
    broker.reposition(&moved, Start::Latest).await.unwrap();
    broker.health().await;
    broker.close().await.unwrap();
    let optional = ["client|unblock", "client|setinfo", "info"].map(str::to_owned);
    let refused = refused(&mut Raw::at(&server.url()).await).await;
    assert!(refused.iter().all(|command| optional.contains(command)), "{refused:?}");
}

async fn first_item(source: &mut Source) -> Result<Inbound> {
    let nothing = || Err(Error::new(ErrorKind::Timeout, "nothing comes"));
    next_within(source, SOON).await.unwrap_or_else(nothing)
}

/// One life of a driver, up to its first error: the error, or `None`.
async fn first_error(url: &str, topic: &Topic) -> Option<Error> {
    let life = async {
        let redis: Redis = connect(url).await?;
        redis.declare(topic).await?;
        publish(&redis, topic, message("x")).await?;
        let mut reader = redis.subscribe(&Subscription::new(&**topic).start(Start::Earliest)).await?;
        first_item(&mut reader).await?;
        let mut source = redis.subscribe(&of_group(topic, "g")).await?;
        let held = first_item(&mut source).await?;
        // It is renewed meanwhile, and given back; another message is acknowledged.
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(held);
        let again = first_item(&mut source).await?;
        ack(again).await?;
        redis.reposition(&of_group(topic, "g"), Start::Earliest).await?;
        redis.close().await
    };
    tokio::time::timeout(SOON * 3, life).await.expect("no more than that").err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_is_missing_is_named() {
    let server = server().await;
    let mut raw = Raw::at(&server.url()).await;
    let needed = [
        "ping",
        "type",
        "xadd",
        "xread",
        "xinfo|stream",
        "xpending",
        "client|id",
        "xreadgroup",
        "xclaim",
        "xack",
        "xgroup|create",
        "xgroup|setid",
    ];
    for (number, command) in needed.into_iter().enumerate() {
        let mut rules = documented();
        rules.push(format!("-{command}"));
        let url = user(&server, &mut raw, &rules).await;
        let topic = Topic::new(&format!("orders.{number}")).unwrap();
        let error = first_error(&url, &topic).await.unwrap_or_else(|| panic!("{command} is not needed"));
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{command}: {error:?}");
        assert!(error.to_string().contains(&format!("'{command}'")), "{command}: {error}");
    }
    // The others are done without.
    for (number, command) in [
        "set",
        "exists",
        "eval",
        "hset",
        "hincrby",
        "hmget",
        "hdel",
        "hscan",
        "expire",
        "xgroup|createconsumer",
        "xinfo|groups",
        "xinfo|consumers",
        "xtrim",
    ]
    .into_iter()
    .enumerate()
    {
        let mut rules = documented();
        rules.push(format!("-{command}"));
        let url = user(&server, &mut raw, &rules).await;
        let topic = Topic::new(&format!("orders.optional.{number}")).unwrap();
        if let Some(error) = first_error(&url, &topic).await {
            panic!("{command}: {error:?}");
        }
    }
    // A key that the user may not touch.
    let url = user(&server, &mut raw, &documented()).await;
    let error = first_error(&url, &Topic::new("invoices").unwrap()).await.unwrap();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.to_string().contains("key"), "{error}");
}

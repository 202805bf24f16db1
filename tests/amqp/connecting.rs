//! Connecting, checking the topology, closing.

use std::collections::HashSet;
use std::process::Command;
use std::time::{Duration, Instant};

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use traced_broker::adapters::amqp::{Amqp, Unroutable};
use traced_broker::driver::{Disposition, Driver, DriverExt};
use traced_broker::{Error, ErrorKind, Topology};

use crate::driving::*;

/// Returns every text that an error exposes.
pub(crate) fn told(error: &Error) -> String {
    let mut told = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        told.push_str(&format!(" {inner} {inner:?}"));
        source = inner.source();
    }
    told
}

#[tokio::test]
async fn an_unknown_option_is_refused_with_the_valid_ones() {
    let error = connect("?prefetch=1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    for option in [
        "name",
        "topology",
        "unroutable",
        "routing_key",
        "connect_timeout",
        "heartbeat",
        "max_in_flight",
        "max_payload",
    ] {
        assert!(error.to_string().contains(option), "{error}");
    }
    for invalid in ["heartbeat=0", "connect_timeout=0", "max_in_flight=0", "topology=maybe", "unroutable=lose"] {
        assert_eq!(connect(&format!("?{invalid}")).await.unwrap_err().kind(), ErrorKind::InvalidConfig, "{invalid}");
    }
}

#[tokio::test]
async fn an_absent_broker_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = connect_to(&format!("amqp://{address}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(error.to_string().contains("check"), "{error}");

    let error = connect_to("amqp://no-such-host.invalid").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no-such-host.invalid:5672"), "{error}");
}

#[tokio::test]
async fn the_second_host_is_tried_when_the_first_is_absent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let absent = listener.local_addr().unwrap();
    drop(listener);
    let present = server().strip_prefix("amqp://").unwrap();
    let amqp = connect_to(&format!("amqp://{absent},{present}")).await.unwrap();
    amqp.ping().await.unwrap();
    let port = present.rsplit_once(':').unwrap().1.parse().unwrap();
    assert_eq!(amqp.identity().server_port, Some(port));
}

#[tokio::test]
async fn who_does_not_answer_is_given_up_in_time() {
    if !alone("connecting::who_does_not_answer_is_given_up_in_time") {
        return;
    }
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let begin = Instant::now();
    let url = format!("amqp://{}?connect_timeout=300", silent.local_addr().unwrap());
    let error = connect_to(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    until(|| client_threads() == 0, "its thread ends").await;
}

#[tokio::test]
async fn who_speaks_something_else_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = connect_to(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
}

#[tokio::test]
async fn credentials_are_checked_and_never_told() {
    let address = server().strip_prefix("amqp://").unwrap();
    let error = connect_to(&format!("amqp://guest:s3cret-word@{address}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(!told(&error).contains("s3cret"), "{}", told(&error));

    let builder = Amqp::builder(format!("amqp://nobody:s3cret-word@{address}")).credentials("guest", "guest");
    assert!(!format!("{builder:?}").contains("s3cret"));
    let amqp = builder.unroutable(Unroutable::Reject).topology(Topology::Check).name("orders").connect().await.unwrap();
    amqp.ping().await.unwrap();
    let shown = format!("{amqp:?}{:?}", amqp.as_client());
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[tokio::test]
async fn a_missing_virtual_host_is_not_found() {
    let error = connect("no-such-host").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    connect("%2F").await.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn missing_topology_is_only_checked_when_so_told() {
    let topic = unique("check");
    let checking = connect("?topology=check").await.unwrap();
    assert_eq!(checking.declare(&topic).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(checking.subscribe(&group(&topic, "g")).await.unwrap_err().kind(), ErrorKind::NotFound);
    let creating = connect("").await.unwrap();
    creating.declare(&topic).await.unwrap();
    creating.declare(&topic).await.unwrap();
    checking.declare(&topic).await.unwrap();
    assert_eq!(checking.subscribe(&group(&topic, "g")).await.unwrap_err().kind(), ErrorKind::NotFound);
    drop(subscribe(&creating, group(&topic, "g")).await);
    let mut source = subscribe(&checking, group(&topic, "g")).await;
    confirmed(checking.enqueue(&topic, outbound("checked"))).await.unwrap();
    assert_eq!(next_text(&mut source).await, "checked");
}

#[tokio::test]
async fn what_is_there_with_other_properties_is_a_conflict_unless_only_checked() {
    let topic = unique("conflict");
    let channel = raw().await.create_channel().await.unwrap();
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let fanout = lapin::ExchangeKind::Fanout;
    channel.exchange_declare(topic.as_str().into(), fanout, durable, FieldTable::default()).await.unwrap();
    let amqp = connect("").await.unwrap();
    let error = amqp.declare(&topic).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("topology=check"), "{error}");
    connect("?topology=check").await.unwrap().declare(&topic).await.unwrap();

    let topic = unique("conflict");
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(format!("{topic}.g").into(), durable, FieldTable::default()).await.unwrap();
    assert_eq!(amqp.subscribe(&group(&topic, "g")).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn names_may_be_as_long_as_the_broker_allows() {
    let long = traced_broker::Topic::new(&format!("{:x<240}", unique("long").as_str())).unwrap();
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&long, &"g".repeat(14))).await;
    confirmed(amqp.enqueue(&long, outbound("long"))).await.unwrap();
    assert_eq!(next_text(&mut source).await, "long");
    let error = amqp.subscribe(&group(&long, &"g".repeat(15))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
}

#[tokio::test]
async fn after_close_everything_says_so_and_sources_end() {
    let topic = unique("closed");
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    confirmed(amqp.enqueue(&topic, outbound("x"))).await.unwrap();
    let unsettled = next(&mut source).await;
    amqp.close().await.unwrap();
    amqp.close().await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, std::future::poll_fn(|cx| source.poll_next(cx))).await.unwrap();
    assert!(ended.is_none(), "{ended:?}");
    let error = confirmed(amqp.enqueue(&topic, outbound("x"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(amqp.declare(&topic).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(amqp.subscribe(&group(&topic, "g")).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(amqp.ping().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(settle(unsettled, Disposition::Ack).await.unwrap_err().kind(), ErrorKind::SettlementLost);
}

/// `close` also delivers messages whose confirmation is not awaited.
#[tokio::test]
async fn close_waits_for_what_is_on_its_way() {
    let topic = unique("underway");
    let amqp = connect("").await.unwrap();
    drop(subscribe(&amqp, group(&topic, "g")).await);
    for n in 0..500 {
        drop(amqp.enqueue(&topic, outbound(n.to_string())));
    }
    amqp.close().await.unwrap();
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let mut arrived = HashSet::new();
    while arrived.len() < 500 {
        arrived.insert(next_text(&mut source).await);
    }
}

/// No threads or connections outlive a driver that is closed, or dropped with all its deliveries.
#[tokio::test]
async fn a_dropped_driver_leaves_nothing_behind() {
    if !alone("connecting::a_dropped_driver_leaves_nothing_behind") {
        return;
    }
    for close in [true, false] {
        let topic = unique("leak");
        let amqp = connect("").await.unwrap();
        let mut source = subscribe(&amqp, group(&topic, "g")).await;
        confirmed(amqp.enqueue(&topic, outbound("x"))).await.unwrap();
        let held = next(&mut source).await;
        assert!(client_threads() > 0 || !cfg!(target_os = "linux"), "else the test sees nothing");
        if close {
            amqp.close().await.unwrap();
        }
        drop(amqp);
        drop(source);
        let held = close.then_some(held);
        until(|| client_threads() == 0, "its threads end").await;
        drop(held);
    }
}

/// Returns `true` if this process runs only that test. Otherwise runs it in a separate process, so
/// that it does not see the threads of other tests.
fn alone(test: &str) -> bool {
    const ALONE: &str = "TRACED_BROKER_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact"]).env(ALONE, "1").env("TRACED_BROKER_AMQP_URL", server());
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    false
}

#[cfg(target_os = "linux")]
fn client_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("lapin")).count()
}

#[cfg(not(target_os = "linux"))]
fn client_threads() -> usize {
    0
}

async fn until(holds: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

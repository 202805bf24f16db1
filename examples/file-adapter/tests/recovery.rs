//! The contents of a directory after files were cut off or damaged, and the rules for opening it.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use tempfile::TempDir;
use traced_broker::{Broker, BrokerUrl, ErrorKind, Message, Subscription, Traced, TracedBroker};
use traced_broker_files::{Files, offline};

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

async fn open(directory: &Path) -> Broker {
    Traced::new(std::sync::Arc::new(Files::open(directory, false).await.unwrap()))
}

fn journal(directory: &Path) -> PathBuf {
    directory.join("topics/orders/journal")
}

/// Changes the journal while it is closed. A directory may stay open for a moment after the last
/// connection is closed.
fn damage(directory: &Path, damage: impl FnOnce(&File)) {
    offline(directory, || damage(&File::options().write(true).open(journal(directory)).unwrap())).unwrap();
}

/// Drops the directory from memory, so that the next connection reads its files.
fn forget(directory: &Path) {
    offline(directory, || ()).unwrap();
}

/// Publishes the payloads, and returns the length of the journal after each.
async fn publish(directory: &Path, payloads: &[&str]) -> Vec<u64> {
    let broker = open(directory).await;
    let mut lengths = Vec::new();
    for payload in payloads {
        broker.publish("orders", Message::new(payload.to_string()).header("h", [0, 255])).await.unwrap();
        lengths.push(fs::metadata(journal(directory)).unwrap().len());
    }
    broker.close().await.unwrap();
    lengths
}

/// Returns the messages that a new group gets until no more arrive.
async fn read(directory: &Path, group: &str) -> Vec<String> {
    let broker = open(directory).await;
    let mut deliveries = broker.subscribe(Subscription::new("orders").group(group)).await.unwrap();
    let mut payloads = Vec::new();
    while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_millis(100), deliveries.next()).await {
        let delivery = delivery.unwrap();
        payloads.push(String::from_utf8_lossy(delivery.message().payload()).into_owned());
        delivery.ack().await.unwrap();
    }
    broker.close().await.unwrap();
    payloads
}

#[tokio::test]
async fn discards_a_record_that_was_cut_off_wherever_it_was() {
    let lengths = publish(directory().path(), &["a", "b"]).await;
    for cut in lengths[0]..lengths[1] {
        let directory = directory();
        publish(directory.path(), &["a", "b"]).await;
        damage(directory.path(), |file| file.set_len(cut).unwrap());
        publish(directory.path(), &["c"]).await;
        assert_eq!(fs::metadata(journal(directory.path())).unwrap().len(), lengths[1], "cut at {cut}");
        if cut == lengths[0] || cut == lengths[0] + 5 || cut + 1 == lengths[1] {
            assert_eq!(read(directory.path(), "g").await, ["a", "c"], "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn keeps_beside_what_follows_a_damaged_record() {
    let directory = directory();
    let lengths = publish(directory.path(), &["a", "b", "c"]).await;
    damage(directory.path(), |file| file.write_all_at(&[0xee], lengths[1] - 1).unwrap());
    assert_eq!(read(directory.path(), "g").await, ["a"]);
    let torn = fs::metadata(journal(directory.path()).with_extension("torn")).unwrap();
    assert_eq!(torn.len(), lengths[2] - lengths[0], "the damaged record and the one behind it");
}

#[tokio::test]
async fn takes_zeros_for_no_record() {
    let directory = directory();
    let lengths = publish(directory.path(), &["a"]).await;
    damage(directory.path(), |file| file.set_len(lengths[0] + 4096).unwrap());
    publish(directory.path(), &["b"]).await;
    assert_eq!(read(directory.path(), "g").await, ["a", "b"]);
}

#[tokio::test]
async fn hands_out_a_record_that_is_no_message_as_it_is() {
    let directory = directory();
    let lengths = publish(directory.path(), &["a"]).await;
    // The length and the CRC-32 of the record `123456789`.
    let foreign = [&[9, 0, 0, 0, 0x26, 0x39, 0xf4, 0xcb][..], b"123456789"].concat();
    damage(directory.path(), |file| file.write_all_at(&foreign, lengths[0]).unwrap());
    assert_eq!(read(directory.path(), "g").await, ["a", "123456789"]);
}

#[tokio::test]
async fn remembers_what_was_settled_and_how_often_it_was_tried() {
    let directory = directory();
    publish(directory.path(), &["a", "b", "c"]).await;
    let group = || Subscription::new("orders").group("g");
    let broker = open(directory.path()).await;
    let mut deliveries = broker.subscribe(group()).await.unwrap();
    deliveries.next().await.unwrap().unwrap().retry(Duration::ZERO).await.unwrap();
    deliveries.next().await.unwrap().unwrap().ack().await.unwrap();
    let _third = deliveries.next().await.unwrap().unwrap();
    broker.close().await.unwrap();
    forget(directory.path());

    let broker = open(directory.path()).await;
    let mut deliveries = broker.subscribe(group()).await.unwrap();
    for (payload, attempt) in [("a", 2), ("c", 1)] {
        let delivery = deliveries.next().await.unwrap().unwrap();
        assert_eq!(delivery.message().payload(), payload);
        assert_eq!(delivery.message().attempt(), attempt);
        delivery.ack().await.unwrap();
    }
    broker.close().await.unwrap();
}

#[tokio::test]
async fn refuses_what_a_url_of_a_directory_cannot_hold() {
    for url in [
        "file:///tmp/x",
        "files://host/tmp/x",
        "files://user@/tmp/x",
        "files:///tmp/x?fsync=true",
        "files:///tmp/x?sync=2",
    ] {
        let error = Files::connect(&url.parse::<BrokerUrl>().unwrap()).await.expect_err(url);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}: {error}");
    }
    let directory = directory();
    let _first = Files::open(directory.path(), true).await.unwrap();
    let error = Files::open(directory.path(), false).await.expect_err("another value of sync");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let error = Files::open("/dev/null/x", true).await.expect_err("no place for a directory");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn creates_no_topic_when_told_to_check() {
    let directory = directory();
    let url = format!("files://{}?topology=check", directory.path().display());
    let broker = Traced::new(Files::connect(&url.parse().unwrap()).await.unwrap());
    let error = broker.publish("orders", Message::new("x")).await.expect_err("there is no such topic");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let error = broker.subscribe(Subscription::new("orders").group("g")).await.expect_err("there is no such topic");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

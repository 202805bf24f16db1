//! Streams that are trimmed: of what every group has handled, by age, by length.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use traced_broker::driver::Driver;
use traced_broker::{Start, Subscription, Topic};

use crate::harness::*;

/// Adds entries that are an hour old, and returns their ids.
async fn add_old(raw: &mut Raw, topic: &Topic, numbers: std::ops::Range<usize>) -> Vec<String> {
    add_at(raw, topic, 1, numbers).await
}

/// Adds entries that are so many hours old, and returns their ids.
async fn add_at(raw: &mut Raw, topic: &Topic, hours: u64, numbers: std::ops::Range<usize>) -> Vec<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let hour_ago = (now - Duration::from_secs(hours * 3600)).as_millis();
    let mut commands = ::redis::pipe();
    for number in numbers {
        let id = format!("{hour_ago}-{}", number + 1);
        commands.cmd("XADD").arg(&**topic).arg(id).arg("payload").arg(number.to_string());
    }
    raw.run_all(&commands).await
}

async fn length(raw: &mut Raw, topic: &Topic) -> usize {
    raw.run(&["XLEN", topic]).await
}

/// Settles everything with a group, while another has not settled one of the messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_all_groups_have_handled_is_removed_from_a_stream_that_was_created_here() {
    const COUNT: usize = 5_000;
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("handled"));
    broker.declare(&topic).await.unwrap();
    let mut first = subscribe(&broker, &topic, "first").await;
    let mut second = subscribe(&broker, &topic, "second").await;
    let mut raw = Raw::new().await;
    let ids = add_old(&mut raw, &topic, 0..COUNT).await;
    assert_eq!(drain(&mut first, COUNT).await.len(), COUNT);
    assert_eq!(drain(&mut second, COUNT / 2).await.len(), COUNT / 2);
    let held = next(&mut second).await;
    assert_eq!(drain(&mut second, COUNT / 2 - 1).await.len(), COUNT / 2 - 1);
    let held_id = held.id.clone().unwrap();
    assert_eq!(held_id, ids[COUNT / 2]);
    eventually("the first half is removed", || async { length(&mut Raw::new().await, &topic).await < COUNT / 2 + 300 })
        .await;
    let left: Vec<::redis::Value> = raw.run(&["XRANGE", &topic, &held_id, &held_id]).await;
    assert_eq!(left.len(), 1, "what one group has not settled stays");
    assert!(length(&mut raw, &topic).await >= COUNT / 2);
    ack(held).await.unwrap();
    eventually("the rest is removed", || async { length(&mut Raw::new().await, &topic).await < 300 }).await;
    // What was handled a moment ago stays for a while: a new group, or a reader, may want it.
    publish_numbers(&broker, &topic, 0..500).await;
    for source in [&mut first, &mut second] {
        drain(source, 500).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(length(&mut raw, &topic).await >= 500);
    let mut reader = broker.subscribe(&Subscription::new(&*topic).start(Start::Earliest)).await.unwrap();
    drain(&mut reader, 500).await;
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_removed_from_a_stream_of_others_unless_asked_for() {
    let mut raw = Raw::new().await;
    for (options, is_trimmed) in [("", false), ("&retention=all", false), ("&retention=handled", true)] {
        let topic = topic("foreign");
        add_old(&mut raw, &topic, 0..1000).await;
        let broker = broker_with(&format!("?claim_idle=400{options}")).await;
        let mut source = subscribe(&broker, &topic, "g").await;
        drain(&mut source, 1000).await;
        if is_trimmed {
            eventually("it is trimmed", || async { length(&mut Raw::new().await, &topic).await < 300 }).await;
        } else {
            tokio::time::sleep(Duration::from_millis(1000)).await;
            assert_eq!(length(&mut raw, &topic).await, 1000, "{options}");
        }
        broker.close().await.unwrap();
    }
}

/// Groups whose messages need no acknowledgement trim, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_at_most_once_group_has_read_is_removed() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("most-once"));
    broker.declare(&topic).await.unwrap();
    let mut source = broker.subscribe(&of_group(&topic, "g").at_most_once()).await.unwrap();
    let mut raw = Raw::new().await;
    for range in [0..1000, 1000..2000] {
        add_at(&mut raw, &topic, 2, range).await;
        for _ in 0..1000 {
            next(&mut source).await;
        }
    }
    publish_numbers(&broker, &topic, 0..1).await;
    eventually("it is trimmed", || async { length(&mut Raw::new().await, &topic).await < 300 }).await;
    broker.close().await.unwrap();
}

/// More messages in one round than are removed at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimming_keeps_up_with_a_busy_stream() {
    const COUNT: usize = 450_000;
    let (broker, topic) = (broker_with("?claim_idle=40000").await, topic("busy"));
    broker.declare(&topic).await.unwrap();
    let mut raw = Raw::new().await;
    for from in (0..COUNT).step_by(50_000) {
        add_at(&mut raw, &topic, 2, from..from + 50_000).await;
    }
    let _: () = raw.run(&["XGROUP", "CREATE", &topic, "g", "$"]).await;
    let _source = subscribe(&broker, &topic, "g").await;
    eventually("it is trimmed in less than a round of ten seconds", || async {
        length(&mut Raw::new().await, &topic).await < 300
    })
    .await;
    broker.close().await.unwrap();
}

/// The length of a stream is that of the part that its slowest group has not handled, however long
/// it goes on, and that group loses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_run_keeps_a_stream_short_and_a_slow_group_whole() {
    const ROUNDS: usize = 15;
    const EACH: usize = 1_000;
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("long"));
    broker.declare(&topic).await.unwrap();
    let mut fast = subscribe(&broker, &topic, "fast").await;
    let mut slow = broker.subscribe(&of_group(&topic, "slow").prefetch(64)).await.unwrap();
    let mut raw = Raw::new().await;
    let (mut longest, mut came) = (0, Vec::new());
    for round in 0..ROUNDS {
        add_at(&mut raw, &topic, 2, round * EACH..(round + 1) * EACH).await;
        drain(&mut fast, EACH).await;
        // One round behind.
        if round > 0 {
            came.extend(drain(&mut slow, EACH).await);
        }
        if round > 3 {
            longest = longest.max(length(&mut raw, &topic).await);
        }
    }
    came.extend(drain(&mut slow, EACH).await);
    assert_eq!(came, numbers(0..ROUNDS * EACH));
    assert!(longest < 5 * EACH, "{longest} of {}", ROUNDS * EACH);
    eventually("all of it is handled", || async { length(&mut Raw::new().await, &topic).await < 300 }).await;
    broker.close().await.unwrap();
}

/// A group that is gone for good keeps the stream: a warning names it, and the command.
#[tokio::test]
async fn a_group_that_is_gone_for_good_is_warned_of() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("gone"));
    broker.declare(&topic).await.unwrap();
    let mut raw = Raw::new().await;
    let _: () = raw.run(&["XGROUP", "CREATE", &topic, "left-behind", "0", "MKSTREAM"]).await;
    add_at(&mut raw, &topic, 2, 0..1000).await;
    let lines = Lines::default();
    let writer = lines.clone();
    let logging = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let installed = tracing::subscriber::set_default(logging);
    // Of this kind, the task runs on this thread.
    let once = of_group(&topic, "g").at_most_once();
    let mut source = broker.subscribe(&once).await.unwrap();
    for _ in 0..1000 {
        next(&mut source).await;
    }
    publish_numbers(&broker, &topic, 0..1).await;
    next(&mut source).await;
    tokio::time::sleep(WHILE).await;
    publish_numbers(&broker, &topic, 0..1).await;
    next(&mut source).await;
    drop(installed);
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert_eq!(logged.matches("XGROUP DESTROY").count(), 1, "{logged}");
    assert!(logged.contains("left-behind"), "{logged}");
    assert_eq!(length(&mut raw, &topic).await, 1002, "nothing of it is removed");
    let _: i64 = raw.run(&["XGROUP", "DESTROY", &topic, "left-behind"]).await;
    publish_numbers(&broker, &topic, 0..1).await;
    eventually("it is trimmed", || async { length(&mut Raw::new().await, &topic).await < 300 }).await;
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_trimmed_by_age() {
    let (broker, topic) = (broker_with("?max_age=60000&retention=all").await, topic("age"));
    let mut raw = Raw::new().await;
    add_old(&mut raw, &topic, 0..1000).await;
    publish_numbers(&broker, &topic, 0..1).await;
    assert!(length(&mut raw, &topic).await < 300, "those of an hour ago are gone");
    let refused = connect(&format!("{}?max_age=1000&maxlen=5", url())).await.unwrap_err();
    assert!(refused.to_string().contains("max_age"), "{refused}");
    broker.close().await.unwrap();
}

/// Collects what is logged by this thread.
#[derive(Clone, Default)]
struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A server that may evict a stream as a whole is warned of.
#[tokio::test]
async fn a_policy_that_evicts_streams_is_warned_of() {
    let server = server().await;
    let mut raw = Raw::at(&server.url()).await;
    for (policy, is_warned_of) in [("noeviction", false), ("allkeys-lru", true), ("volatile-lru", false)] {
        let _: () = raw.run(&["CONFIG", "SET", "maxmemory-policy", policy]).await;
        let lines = Lines::default();
        let writer = lines.clone();
        let logging = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let installed = tracing::subscriber::set_default(logging);
        connect(&server.url()).await.unwrap().close().await.unwrap();
        drop(installed);
        let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(logged.contains("maxmemory-policy"), is_warned_of, "{policy}: {logged}");
    }
}

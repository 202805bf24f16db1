//! A server of a cluster that is about to end: its clients and leaders move to the others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use traced_broker::adapters::nats::Nats;
use traced_broker::driver::{Disposition, Driver, DriverExt};
use traced_broker::{ErrorKind, Topic};

use crate::kit::{self, ack, connect_to, message, next, publish_numbers, settle, subscribe, text, topic};
use crate::support::{Cluster, Kind, send_signal};

/// Maximum time without a new message.
const RECOVERY: Duration = Duration::from_secs(10);
/// Time in which the server ends: ten seconds of grace, and one second for each client.
const END: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_slowly_takes_no_delivery_with_it() {
    let cluster = spawn_blocking(|| Cluster::try_start(Kind::Nats).unwrap()).await.unwrap();
    let options = "?replicas=3&ack=confirm";
    let nats = Arc::new(connect_to(&format!("{}{options}", cluster.url())).await.unwrap());
    let topic = topic("lame");
    publish_numbers(&nats, &topic, 0..20).await;
    let mut source = subscribe(&nats, &topic, "workers").await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(next(&mut source).await);
    }
    let name = nats.as_client().server_info().server_name;
    let lame = cluster.nodes().iter().find(|node| name.ends_with(&node.port().to_string())).unwrap();
    assert!(send_signal("USR2", lame.pid()));
    let publishing = publish_all_the_time(&nats, &topic);
    let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let (mut received, mut settling) = (BTreeSet::new(), JoinSet::new());
    // A consumer without a leader does not answer settlements.
    let mut unanswered = BTreeSet::new();
    // Until the server has ended, and some more.
    let mut ended = None;
    while ended.is_none_or(|ended: Instant| ended.elapsed() < Duration::from_secs(8)) {
        assert!(begun.elapsed() < END * 2, "the server ends");
        if ended.is_none() && !lame.answers() && last.elapsed() < RECOVERY && !is_alive(lame.pid()) {
            ended = Some(Instant::now());
        }
        while let Some(settled) = settling.try_join_next() {
            unanswered.extend(settled.unwrap());
        }
        let Some(Ok(inbound)) = kit::next_within(&mut source, Duration::from_millis(50)).await else { continue };
        let name = text(&inbound).to_owned();
        assert!(inbound.deliveries == Some(1) || unanswered.contains(&name), "{name} is handed out again");
        received.insert(name.clone());
        longest = longest.max(last.elapsed());
        last = Instant::now();
        settling.spawn(async move {
            let error = settle(inbound, Disposition::Ack).await.err()?;
            assert_eq!(error.kind(), ErrorKind::SettlementLost, "{error}");
            Some(name)
        });
    }
    assert!(longest.max(last.elapsed()) < RECOVERY, "{longest:?} without a message");
    let expected = publishing.stop().await;
    while !received.is_superset(&expected) {
        let inbound = kit::next_message(&mut source).await;
        received.insert(text(&inbound).to_owned());
        ack(inbound).await;
    }
    unanswered.extend(settling.join_all().await.into_iter().flatten());
    for inbound in held {
        assert!(!inbound.tenure.is_over());
        ack(inbound).await;
    }
    while let Some(item) = kit::next_within(&mut source, Duration::from_secs(1)).await {
        assert!(item.is_ok_and(|inbound| unanswered.contains(text(&inbound))), "nothing else comes again");
    }
    nats.close().await.unwrap();
}

/// Publishes in a task of its own, because a publish that is not answered takes its time.
struct Publishing {
    stop: CancellationToken,
    confirmed: JoinHandle<BTreeSet<String>>,
}

fn publish_all_the_time(nats: &Arc<Nats>, topic: &Topic) -> Publishing {
    let (nats, topic, stop) = (Arc::clone(nats), topic.clone(), CancellationToken::new());
    let stopped = stop.clone();
    let confirmed = tokio::spawn(async move {
        let mut confirmed = BTreeSet::new();
        for number in 20.. {
            if stopped.is_cancelled() {
                break;
            }
            if nats.enqueue(&topic, message(number.to_string())).await.is_ok() {
                confirmed.insert(number.to_string());
            }
            sleep(Duration::from_millis(50)).await;
        }
        confirmed
    });
    Publishing { stop, confirmed }
}

impl Publishing {
    /// Returns what was confirmed.
    async fn stop(self) -> BTreeSet<String> {
        self.stop.cancel();
        self.confirmed.await.unwrap()
    }
}

fn is_alive(pid: u32) -> bool {
    send_signal("0", pid)
}

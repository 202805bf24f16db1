//! A server of a cluster that is about to end: its clients and leaders move to the others.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use traced_broker::ErrorKind;
use traced_broker::driver::{Disposition, Driver, DriverExt};

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
    let nats = connect_to(&format!("{}{options}", cluster.url())).await.unwrap();
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
    let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let (mut expected, mut received, mut number) = (BTreeSet::new(), BTreeSet::new(), 20_u32);
    // A consumer without a leader does not answer settlements.
    let mut unanswered = BTreeSet::new();
    // Until the server has ended, and some more.
    let mut ended = None;
    while ended.is_none_or(|ended: Instant| ended.elapsed() < Duration::from_secs(8)) {
        assert!(begun.elapsed() < END * 2, "the server ends");
        if ended.is_none() && !lame.answers() && last.elapsed() < RECOVERY && !is_alive(lame.pid()) {
            ended = Some(Instant::now());
        }
        if nats.enqueue(&topic, message(number.to_string())).await.is_ok() {
            expected.insert(number.to_string());
        }
        number += 1;
        while let Some(item) = kit::next_within(&mut source, Duration::from_millis(50)).await {
            let Ok(inbound) = item else { continue };
            let name = text(&inbound).to_owned();
            assert!(inbound.deliveries == Some(1) || unanswered.contains(&name), "{name} is handed out again");
            received.insert(name.clone());
            longest = longest.max(last.elapsed());
            last = Instant::now();
            if let Err(error) = settle(inbound, Disposition::Ack).await {
                assert_eq!(error.kind(), ErrorKind::SettlementLost, "{error}");
                unanswered.insert(name);
            }
        }
    }
    assert!(longest.max(last.elapsed()) < RECOVERY, "{longest:?} without a message");
    let missing: Vec<_> = expected.difference(&received).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for inbound in held {
        assert!(!inbound.tenure.is_over());
        ack(inbound).await;
    }
    while let Some(item) = kit::next_within(&mut source, Duration::from_secs(1)).await {
        assert!(item.is_ok_and(|inbound| unanswered.contains(text(&inbound))), "nothing else comes again");
    }
    nats.close().await.unwrap();
}

fn is_alive(pid: u32) -> bool {
    send_signal("0", pid)
}

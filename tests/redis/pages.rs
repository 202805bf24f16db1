//! The size and the number of the questions that a member asks.

use std::time::Duration;

use traced_broker::driver::Driver;

use crate::harness::*;

/// A member beside a long list of other members' messages asks little about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_list_of_others_costs_few_round_trips() {
    let server = server().await;
    let (mut raw, topic) = (Raw::at(&server.url()).await, topic("long"));
    let broker = connect(&format!("{}?claim_idle=8000", server.url())).await.unwrap();
    let _: () = raw.run(&["XGROUP", "CREATE", &topic, "g", "0", "MKSTREAM"]).await;
    for first in (0..20_000).step_by(1000) {
        publish_numbers(&broker, &topic, first..first + 1000).await;
    }
    let read = ["XREADGROUP", "GROUP", "g", "other", "COUNT", "20000", "STREAMS", &*topic, ">"];
    let _: ::redis::Value = raw.run(&read).await;
    let mut source = broker.subscribe(&of_group(&topic, "g").prefetch(4)).await.unwrap();
    let _: () = raw.run(&["CONFIG", "RESETSTAT"]).await;
    publish_numbers(&broker, &topic, 0..400).await;
    assert_eq!(drain(&mut source, 400).await, numbers(0..400));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stats: String = raw.run(&["INFO", "commandstats"]).await;
    let calls = |name: &str| -> u64 {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    };
    let looks = calls("xpending") + calls("xautoclaim") + calls("xclaim");
    // Each second for what was given back; and at each of the rounds, two seconds apart.
    assert!(looks < 60, "{looks} in some seconds: {stats}");
    broker.close().await.unwrap();
}

/// Large messages are read a few at a time, whatever the prefetch is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_are_read_a_few_at_a_time() {
    let server = server().await;
    let (mut raw, topic) = (Raw::at(&server.url()).await, topic("large"));
    let broker = connect(&server.url()).await.unwrap();
    for number in 0..100 {
        publish(&broker, &topic, message(vec![number; 1024 * 1024])).await.unwrap();
    }
    let _: () = raw.run(&["CONFIG", "RESETSTAT"]).await;
    let mut source = subscribe(&broker, &topic, "g").await;
    for _ in 0..100 {
        ack(next_message(&mut source).await).await.unwrap();
    }
    let stats: String = raw.run(&["INFO", "commandstats"]).await;
    let reads = stats.lines().find_map(|line| line.strip_prefix("cmdstat_xreadgroup:calls=")).unwrap();
    let reads: u32 = reads.split(',').next().unwrap().parse().unwrap();
    assert!(reads >= 8, "100 MiB in {reads} reads");
    broker.close().await.unwrap();
}

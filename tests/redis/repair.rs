//! Groups that are lost, and groups of a server that takes no writes.

use std::time::Duration;

use traced_broker::driver::Driver;
use traced_broker::{ErrorKind, PublishOutcome, Start};

use crate::harness::*;

/// Waits for some of the rounds in which a member with `claim_idle=400` looks after its group.
async fn some_rounds() {
    tokio::time::sleep(Duration::from_millis(600)).await;
}

/// A group that is destroyed begins where it was: what was settled does not come again, and what
/// was not comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_was_lost_begins_where_it_was() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("lost"));
    let mut source = subscribe(&broker, &topic, "g").await;
    let mut once = broker.subscribe(&of_group(&topic, "once").at_most_once()).await.unwrap();
    publish_numbers(&broker, &topic, 0..1000).await;
    assert_eq!(drain(&mut source, 990).await, numbers(0..990));
    drain(&mut once, 1000).await;
    let unsettled = next(&mut source).await;
    assert_eq!(drain(&mut source, 9).await, numbers(991..1000));
    some_rounds().await;
    let mut raw = Raw::new().await;
    for group in ["g", "once"] {
        let _: i64 = raw.run(&["XGROUP", "DESTROY", &topic, group]).await;
    }
    // Also a member that looks after its group without reading it knows where it was.
    some_rounds().await;
    publish_numbers(&broker, &topic, 1000..1003).await;
    drop(unsettled);
    let mut came = drain(&mut source, 13).await;
    came.sort_by_key(|number| number.parse::<usize>().unwrap());
    assert_eq!(came, numbers(990..1003), "from the first one that was not settled");
    assert_eq!(drain(&mut once, 3).await, numbers(1000..1003));
    for source in [&mut source, &mut once] {
        nothing_comes(source).await;
    }
    broker.close().await.unwrap();
}

/// A stream that was made anew may have any ids: its first message counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_made_anew_is_read_from_its_beginning() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("anew"));
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..3).await;
    assert_eq!(drain(&mut source, 3).await, numbers(0..3));
    some_rounds().await;
    let mut raw = Raw::new().await;
    let mut anew = ::redis::pipe();
    anew.atomic().cmd("DEL").arg(&*topic).cmd("XADD").arg(&*topic).arg("1-1").arg("payload").arg("first");
    let _: Vec<::redis::Value> = raw.run_all(&anew).await;
    assert_eq!(drain(&mut source, 1).await, ["first"]);
    // A group that is moved by hand is lost at once afterwards: nothing behind its new position is
    // passed over for longer than until the next round.
    broker.reposition(&of_group(&topic, "g"), Start::Earliest).await.unwrap();
    let _: i64 = raw.run(&["XGROUP", "DESTROY", &topic, "g"]).await;
    assert_eq!(drain(&mut source, 1).await, ["first"]);
    broker.close().await.unwrap();
}

/// A server without memory takes no messages and no groups. Groups that exist are worked off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_worked_off() {
    let server = server().await;
    let (mut raw, topic) = (Raw::at(&server.url()).await, topic("full"));
    let broker = connect(&server.url()).await.unwrap();
    for group in ["g", "once"] {
        let _: () = raw.run(&["XGROUP", "CREATE", &topic, group, "0", "MKSTREAM"]).await;
    }
    publish_numbers(&broker, &topic, 0..3).await;
    let _: () = raw.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = publish(&broker, &topic, message("x")).await.unwrap_err();
    assert_eq!((refused.kind(), refused.publish_outcome()), (ErrorKind::Busy, PublishOutcome::NotSent), "{refused}");
    let refused = broker.subscribe(&of_group(&topic, "new")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy, "{refused}");

    let later = connect(&server.url()).await.unwrap();
    let mut source = subscribe(&later, &topic, "g").await;
    let mut once = later.subscribe(&of_group(&topic, "once").at_most_once()).await.unwrap();
    for source in [&mut source, &mut once] {
        assert_eq!(drain(source, 3).await, numbers(0..3));
    }
    assert!(raw.pending(&topic, "g").await.is_empty());
    let _: () = raw.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    later.close().await.unwrap();
    broker.close().await.unwrap();
}

/// A server that cannot write its snapshot refuses for a while, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_disk_may_be_asked_again() {
    let server = server().await;
    let (mut raw, topic) = (Raw::at(&server.url()).await, topic("disk"));
    let broker = connect(&server.url()).await.unwrap();
    publish_numbers(&broker, &topic, 0..1).await;
    let place: Vec<String> = raw.run(&["CONFIG", "GET", "dir"]).await;
    let name: Vec<String> = raw.run(&["CONFIG", "GET", "dbfilename"]).await;
    // A snapshot cannot take the place of a folder.
    let snapshot = std::path::Path::new(&place[1]).join(&name[1]);
    let _ = std::fs::remove_file(&snapshot);
    std::fs::create_dir(&snapshot).unwrap();
    let _: () = raw.run(&["CONFIG", "SET", "save", "3600 1000000"]).await;
    let _: String = raw.run(&["BGSAVE"]).await;
    let refused = loop {
        match publish(&broker, &topic, message("x")).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => break error,
        }
    };
    assert_eq!((refused.kind(), refused.publish_outcome()), (ErrorKind::Unavailable, PublishOutcome::NotSent));
    assert!(refused.kind().is_retryable(), "{refused}");
    let _: () = raw.run(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]).await;
    publish(&broker, &topic, message("goes on")).await.unwrap();
    broker.close().await.unwrap();
}

/// A server that has too many clients is one to ask again, not one that refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_too_many_clients_may_be_asked_again() {
    let server = server().await;
    let mut raw = Raw::at(&server.url()).await;
    let _: () = raw.run(&["CONFIG", "SET", "maxclients", "1"]).await;
    let error = connect(&server.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

/// A member whose window is full looks after its group, too, and finds it lost before it reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_room_remembers_where_its_group_was() {
    let (broker, topic) = (broker_with("?claim_idle=400").await, topic("no-room"));
    let mut source = broker.subscribe(&of_group(&topic, "g").prefetch(1)).await.unwrap();
    publish_numbers(&broker, &topic, 0..10).await;
    assert_eq!(drain(&mut source, 5).await, numbers(0..5));
    let held = next(&mut source).await;
    some_rounds().await;
    let _: i64 = Raw::new().await.run(&["XGROUP", "DESTROY", &topic, "g"]).await;
    some_rounds().await;
    drop(held);
    assert_eq!(drain(&mut source, 5).await, numbers(5..10));
    broker.close().await.unwrap();
}

//! Core NATS: messages reach only current subscribers.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use traced_broker::capability::{Confirm, Redelivery};
use traced_broker::driver::{Disposition, Driver, DriverExt, Outbound, Source};
use traced_broker::{ErrorKind, PublishOutcome, Start, Subscription};

use crate::kit::{self, assert_quiet, message, next, next_within, publish, settle, text, topic, with_headers};
use crate::proxy::Proxy;
use crate::support::{Kind, Server, shared};

#[tokio::test]
async fn listeners_hear_and_groups_share() {
    let nats = kit::connect_with("?mode=core").await;
    let topic = topic("core");
    nats.declare(&topic).await.unwrap();
    publish(&nats, &topic, message("to nobody")).await.unwrap();
    // Listeners have connections of their own. After a round trip the server has the message.
    nats.ping().await.unwrap();
    let listening = Subscription::new(&*topic).at_most_once();
    let mut alone = [nats.subscribe(&listening).await.unwrap(), nats.subscribe(&listening).await.unwrap()];
    let mut members = Vec::new();
    for _ in 0..2 {
        members.push(nats.subscribe(&listening.clone().group("workers")).await.unwrap());
    }
    for number in 0..100 {
        let receipt = publish(&nats, &topic, message(number.to_string())).await.unwrap();
        assert_eq!((receipt.confirmed, receipt.outcome()), (false, PublishOutcome::Unknown));
    }
    for source in &mut alone {
        for number in 0..100 {
            let inbound = next(source).await;
            assert_eq!(text(&inbound), number.to_string());
            settle(inbound, Disposition::Ack).await.unwrap();
        }
        assert_quiet(source).await;
    }
    let mut shares = [0, 0];
    for (share, source) in shares.iter_mut().zip(&mut members) {
        while next_within(source, kit::WHILE).await.is_some() {
            *share += 1;
        }
    }
    assert_eq!(shares[0] + shares[1], 100);
    assert!(shares[0] > 0 && shares[1] > 0, "{shares:?}");
}

#[tokio::test]
async fn headers_and_key_are_carried_as_with_jetstream() {
    let nats = kit::connect_with("?mode=core").await;
    let topic = topic("headers");
    let mut source = nats.subscribe(&Subscription::new(&*topic).at_most_once()).await.unwrap();
    let sent = Outbound {
        key: Some(Bytes::from_static(b"\xffk")),
        id: Some("i".into()),
        ..with_headers("x", [("a", &b"1"[..])])
    };
    publish(&nats, &topic, sent).await.unwrap();
    let inbound = next(&mut source).await;
    assert_eq!((inbound.key.as_deref(), inbound.id.as_deref()), (Some(&b"\xffk"[..]), Some("i")));
    assert_eq!(inbound.headers.iter().collect::<Vec<_>>(), [("a", &b"1"[..])]);
    assert_eq!((inbound.attempt, inbound.timestamp, inbound.offset), (1, None, None));
    let error = publish(&nats, &topic, with_headers("x", [("a", &b"\n"[..])])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidMessage);
}

#[tokio::test]
async fn what_core_cannot_do_is_refused_at_subscribe() {
    let nats = kit::connect_with("?mode=core").await;
    let topic = topic("cannot");
    let error = nats.subscribe(&Subscription::new(&*topic).group("workers")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("at_most_once()") && error.to_string().contains("JetStream"), "{error}");
    let early = Subscription::new(&*topic).at_most_once().start(Start::Earliest);
    assert_eq!(nats.subscribe(&early).await.unwrap_err().kind(), ErrorKind::Unsupported);

    let mut source = nats.subscribe(&Subscription::new(&*topic).at_most_once()).await.unwrap();
    publish(&nats, &topic, message("x")).await.unwrap();
    let error = settle(next(&mut source).await, Disposition::Retry(Duration::ZERO)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);

    let capabilities = nats.capabilities();
    assert_eq!((capabilities.confirm, capabilities.retry), (Confirm::Never, Redelivery::Unsupported));
    assert!(!capabilities.at_least_once && !capabilities.backlog && capabilities.groups);
}

#[tokio::test(flavor = "current_thread")]
async fn a_producer_that_never_waits_does_not_overrun_the_queue() {
    let nats = kit::connect_with("?mode=core").await;
    let topic = topic("flood");
    // Here only the confirmation lets the client's task run.
    for _ in 0..200_000 {
        nats.enqueue(&topic, message("x")).await.unwrap();
    }
    nats.ping().await.unwrap();
}

/// Returns the number of messages that a listener gets, and of those that it is told are lost.
async fn heard_and_lost(source: &mut Source) -> (u32, u32) {
    let (mut heard, mut lost) = (0, 0);
    while let Some(item) = next_within(source, kit::WHILE).await {
        match item {
            Ok(_) => heard += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Busy);
                lost += error.context().find(|(key, _)| *key == "lost").unwrap().1.parse::<u32>().unwrap();
            }
        }
    }
    (heard, lost)
}

#[tokio::test]
async fn messages_that_nobody_reads_in_time_are_reported_lost() {
    let nats = kit::connect_with("?mode=core").await;
    let topic = topic("slow");
    let mut source = nats.subscribe(&Subscription::new(&*topic).at_most_once()).await.unwrap();
    for _ in 0..70_000 {
        nats.enqueue(&topic, message("x")).await.unwrap();
    }
    nats.ping().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (heard, lost) = heard_and_lost(&mut source).await;
    assert!(heard >= 65_536 && lost > 0, "{heard} heard, {lost} reported");
}

/// 200 MB, of which no more wait here than the bound of 64 MiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_unread_messages_are_bounded_in_bytes() {
    let nats = kit::connect_with("?mode=core").await;
    let topic = topic("large");
    let mut source = nats.subscribe(&Subscription::new(&*topic).at_most_once()).await.unwrap();
    let payload = Bytes::from(vec![b'x'; 1_000_000]);
    for _ in 0..20 {
        for _ in 0..10 {
            nats.enqueue(&topic, message(payload.clone())).await.unwrap();
        }
        nats.ping().await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (heard, lost) = heard_and_lost(&mut source).await;
    assert!((50..68).contains(&heard) && heard + lost == 200, "{heard} heard, {lost} reported");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_lost_is_reported_as_a_gap() {
    let server = traced_broker::BrokerUrl::parse(shared(Kind::Nats)).unwrap().hosts(4222).remove(0);
    let proxy = Proxy::start(server).await;
    let direct = kit::connect_with("?mode=core").await;
    let nats = kit::connect_to(&format!("{}?mode=core", proxy.url(""))).await.unwrap();
    let topic = topic("gap");
    let mut source = nats.subscribe(&Subscription::new(&*topic).at_most_once()).await.unwrap();
    publish(&direct, &topic, message("before")).await.unwrap();
    direct.ping().await.unwrap();
    tokio::time::sleep(kit::WHILE).await;
    proxy.cut();
    // Nobody reads, and nothing comes: it is told all the same, in its place.
    tokio::time::sleep(kit::WHILE * 3).await;
    publish(&direct, &topic, message("after")).await.unwrap();
    assert_eq!(text(&next(&mut source).await), "before");
    let gap = next_within(&mut source, kit::SOON).await.expect("a report").unwrap_err();
    assert_eq!(gap.kind(), ErrorKind::Unavailable, "{gap}");
    assert!(gap.to_string().contains("missed"), "{gap}");
    assert_eq!(text(&next(&mut source).await), "after");
    assert_quiet(&mut source).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_ends_in_close_also_without_a_server() {
    let server = spawn_blocking(|| Server::start(Kind::Nats)).await.unwrap();
    let nats = kit::connect_to(&format!("{}?mode=core", server.url())).await.unwrap();
    let topic = topic("ends");
    let mut source = nats.subscribe(&Subscription::new(&*topic).at_most_once()).await.unwrap();
    spawn_blocking(move || server.kill()).await.unwrap();
    assert!(next_within(&mut source, kit::WHILE).await.is_none_or(|item| item.is_err()));
    let (closed, ended) = tokio::join!(tokio::time::timeout(kit::SOON, nats.close()), async {
        while let Some(item) = poll_fn(|cx| source.poll_next(cx)).await {
            assert!(item.is_err());
        }
    });
    let () = ended;
    // It may say that what was published is not known to be with the server.
    let _ = closed.expect("it ends");
}

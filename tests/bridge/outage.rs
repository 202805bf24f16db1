//! A target that is unavailable for a while.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TraceContextExt;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;
use traced_broker::{Message, Retry, TracedBroker, TracedBrokerExt};

use crate::setup::{SOON, Setup, number, receive, text};
use crate::support::{Kind, Server};
use crate::traces::linked;

const MESSAGES: usize = 40;

/// Messages published while the target is down wait at the source, and all arrive once it is back.
async fn nothing_is_lost_while_the_target_is_away(kind: Kind, options: &str) {
    let server = Arc::new(tokio::task::spawn_blocking(move || Server::start(kind)).await.unwrap());
    let number = number();
    let setup = Setup::over(&format!("memory://bridge-{number}"), &format!("{}{options}", server.url()), number).await;
    let mut arrivals = setup.arrivals().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let failed = Mutex::new(0);
    let bridging = async {
        let bridge = setup.from.bridge(setup.bridged(), &setup.to, &setup.far).in_flight(8);
        let bridge = bridge.retry(Retry::default().longest_delay(Duration::from_millis(300)));
        let bridge = bridge.progress_every(Duration::from_millis(20)).on_progress(|now| *failed.lock() = now.failed);
        bridge.run_until(stopped).await.unwrap()
    };
    let sending = async {
        let root = setup.spans.root("import");
        setup.from.publish(&setup.near, Message::new("first").context(root.clone())).await.unwrap();
        assert_eq!(text(&receive(&mut arrivals).await), "first");
        if kind == Kind::RabbitMq {
            // RabbitMQ records new queues on disk only every five seconds.
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
        on(&server, Server::kill).await;
        for order in 0..MESSAGES {
            let message = Message::new(order.to_string()).context(root.clone());
            setup.from.publish(&setup.near, message).await.unwrap();
        }
        while *failed.lock() < 8 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        on(&server, Server::restart).await;
        let mut arrived = BTreeSet::new();
        while arrived.len() < MESSAGES {
            arrived.insert(text(&receive(&mut arrivals).await));
        }
        root.span().end();
        drop(stop);
    };
    let (bridged, ()) = timeout(2 * SOON, async { tokio::join!(bridging, sending) }).await.expect("it goes on");
    setup.close().await;
    assert_eq!(bridged.progress.copied, MESSAGES as u64 + 1, "{bridged}");
    assert_eq!((bridged.consumed.handled, bridged.consumed.retried), (MESSAGES as u64 + 1, 0), "{bridged}");
    assert!(bridged.progress.failed >= 8, "{bridged}");
    setup.spans.assert_whole(1);
    let attempts = setup.spans.named(&format!("send {}", setup.far));
    assert_eq!(attempts.len() as u64, bridged.progress.copied + bridged.progress.failed, "each attempt is a span");
    assert!(attempts.iter().all(|attempt| linked(attempt).len() == 1), "and links what it sends");
}

async fn on(server: &Arc<Server>, act: fn(&Server)) {
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || act(&server)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats() {
    nothing_is_lost_while_the_target_is_away(Kind::Nats, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis() {
    nothing_is_lost_while_the_target_is_away(Kind::Redis, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq() {
    nothing_is_lost_while_the_target_is_away(Kind::RabbitMq, "").await;
}

/// Kafka's client retries for half a minute by itself unless configured otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka() {
    nothing_is_lost_while_the_target_is_away(Kind::Kafka, "?delivery_timeout=2000").await;
}

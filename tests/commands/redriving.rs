//! Tests of `redrive`.

use traced_broker::{HandlerError, Received, Subscription, TracedBroker as _};

use crate::command::traced_broker;
use crate::setup::{Setup, on_each_broker, text};
use crate::support::Kind;

on_each_broker! {
    letters_are_counted_sent_back_and_handled,
    a_letter_of_nobody_is_left,
}

/// Dead-letters this many messages; returns their topic and the group that reads them.
async fn reject(setup: &Setup, letters: usize) -> (String, &'static str) {
    let (dead, group) = (setup.beside("dead"), if setup.kind == Kind::RabbitMq { "parked" } else { "redrive" });
    let mut workers =
        setup.broker.subscribe(Subscription::new(&setup.topic).group("workers").dead_letter(&dead)).await.unwrap();
    for number in 0..letters {
        setup.publish(&number.to_string()).await;
    }
    for _ in 0..letters {
        let delivery = futures_util::StreamExt::next(&mut workers).await.unwrap().unwrap();
        delivery.process(async |_: Received| Err::<(), _>(HandlerError::reject("hopeless"))).await.unwrap();
    }
    (dead, group)
}

async fn letters_are_counted_sent_back_and_handled(setup: Setup) {
    let (dead, group) = reject(&setup, 5).await;
    let redrive = ["redrive", &setup.url, &dead, "--group", group, "--idle", setup.idle()];
    let dry = traced_broker(&[&redrive[..], &["--dry-run"]].concat()).await.ends_with(0);
    dry.prints(&["5 could be sent back\n"]);
    let few = traced_broker(&[&redrive[..], &["--limit", "2", "--json"]].concat()).await.ends_with(0);
    few.prints(&[r#"{"left":0,"sent_back":2}"#]);
    traced_broker(&redrive).await.ends_with(0).prints(&["3 sent back\n"]);
    let mut again: Vec<String> = setup.receive("workers", 5).await.iter().map(text).collect();
    again.sort();
    assert_eq!(again, ["0", "1", "2", "3", "4"]);
    setup.assert_no_more("workers").await;
}

async fn a_letter_of_nobody_is_left(setup: Setup) {
    let (dead, group) = reject(&setup, 1).await;
    let stray = setup.with_topic(&dead);
    stray.publish("stray").await;
    let redrive = ["redrive", &setup.url, &dead, "--group", group, "--idle", setup.idle()];
    traced_broker(&redrive).await.ends_with(1).prints(&["1 sent back, 1 left in the topic\n"]);
    let left = setup.with_topic(&dead).receive(group, 1).await;
    assert_eq!(text(&left[0]), "stray", "it stays in the dead-letter topic");
}

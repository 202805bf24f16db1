//! `redrive`.

use traced_broker::{HandlerError, Received, Subscription, TracedBroker as _};

use crate::command::traced_broker;
use crate::support::Kind;
use crate::world::{World, on_each_broker, text};

on_each_broker! {
    letters_are_counted_sent_back_and_handled,
    a_letter_of_nobody_is_left,
}

/// Has a consumer give up this many messages, and tells where they are and which group reads them.
async fn bury(world: &World, letters: usize) -> (String, &'static str) {
    let (dead, group) = (world.beside("dead"), if world.kind == Kind::RabbitMq { "parked" } else { "redrive" });
    let mut workers =
        world.broker.subscribe(Subscription::new(&world.topic).group("workers").dead_letter(&dead)).await.unwrap();
    for number in 0..letters {
        world.publish(&number.to_string()).await;
    }
    for _ in 0..letters {
        let delivery = futures_util::StreamExt::next(&mut workers).await.unwrap().unwrap();
        delivery.process(async |_: Received| Err::<(), _>(HandlerError::reject("hopeless"))).await.unwrap();
    }
    (dead, group)
}

async fn letters_are_counted_sent_back_and_handled(world: World) {
    let (dead, group) = bury(&world, 5).await;
    let redrive = ["redrive", &world.url, &dead, "--group", group, "--idle", world.idle()];
    let dry = traced_broker(&[&redrive[..], &["--dry-run"]].concat()).await.ends_with(0);
    dry.prints(&["5 could be sent back\n"]);
    let few = traced_broker(&[&redrive[..], &["--limit", "2", "--json"]].concat()).await.ends_with(0);
    few.prints(&[r#"{"left":0,"sent_back":2}"#]);
    traced_broker(&redrive).await.ends_with(0).prints(&["3 sent back\n"]);
    let mut again: Vec<String> = world.receive("workers", 5).await.iter().map(text).collect();
    again.sort();
    assert_eq!(again, ["0", "1", "2", "3", "4"]);
    world.assert_no_more("workers").await;
}

async fn a_letter_of_nobody_is_left(world: World) {
    let (dead, group) = bury(&world, 1).await;
    let stray = world.with_topic(&dead);
    stray.publish("stray").await;
    let redrive = ["redrive", &world.url, &dead, "--group", group, "--idle", world.idle()];
    traced_broker(&redrive).await.ends_with(1).prints(&["1 sent back, 1 left where they are\n"]);
    let left = world.with_topic(&dead).receive(group, 1).await;
    assert_eq!(text(&left[0]), "stray", "for whoever looks after it");
}

//! Sending dead letters back.

use std::time::Duration;

use futures_util::StreamExt as _;
use traced_broker::adapters::memory::Memory;
use traced_broker::driver::{Confirmer, Destination, Driver, Identity, Outbound, Source};
use traced_broker::names::header;
use traced_broker::redrive::Redriven;
use traced_broker::{
    Capabilities, Error, ErrorKind, HandlerError, Message, Receipt, Received, Result, Retry, Start, Subscription,
    Topic, Traced, TracedBroker, TracedBrokerExt,
};

use crate::shop::{DEAD, Record, TOPIC, broker, publish, text, workers};

const IDLE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn letters_go_back_where_they_came_from_as_they_were() {
    let (broker, record) = (broker(), Record::default());
    broker.publish(TOPIC, Message::new("one").key("k").header("tenant", "acme")).await.unwrap();
    let broken = async |_: Received| Err::<(), _>(HandlerError::retry("broken"));
    let consume = broker.consume(workers(), broken).dead_letter(DEAD).retry(Retry::never());
    consume.run_until(tokio::time::sleep(IDLE)).await.unwrap();

    // Not a dead letter of this library: its origin is unknown.
    broker.publish(DEAD, Message::new("stray")).await.unwrap();
    let redriven = broker.redrive(DEAD).idle(IDLE).run().await.unwrap();
    assert_eq!((redriven.sent_back, redriven.left), (1, 1));

    let mended = async |message: Received| {
        let tenant = message.headers().get_str("tenant").unwrap_or("none").to_owned();
        let dead = message.headers().iter().any(|(name, _)| header::DEAD_LETTER.contains(&name));
        record.add(format!("{} {tenant} {:?} {dead} {}", text(&message), message.key(), message.attempt()));
        Ok::<_, HandlerError>(())
    };
    broker.consume(workers(), mended).run_until(record.reaches(1)).await.unwrap();
    assert_eq!(record.lines(), ["one acme Some(b\"k\") false 1"]);
    let redriven = broker.redrive(DEAD).idle(IDLE).run().await.unwrap();
    assert_eq!((redriven.sent_back, redriven.left), (0, 1), "the stray letter is still there");
}

/// The consumer that rejected them continues, and rejects them again.
#[tokio::test]
async fn what_dies_again_at_once_is_not_sent_back_for_ever() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, ["a", "b", "c"]).await;
    let broken = async |message: Received| {
        record.add(text(&message));
        Err::<(), _>(HandlerError::reject("still broken"))
    };
    let redriving = async {
        record.reaches(3).await;
        tokio::time::sleep(IDLE).await;
        let redriven = broker.redrive(DEAD).at_most(2).idle(IDLE).run().await.unwrap();
        assert_eq!(redriven.sent_back, 2);
        // Enough time for both to be rejected again before the next redrive begins.
        tokio::time::sleep(IDLE).await;
        let redriven = broker.redrive(DEAD).idle(IDLE).run().await.unwrap();
        assert_eq!((redriven.sent_back, redriven.left), (3, 3));
    };
    let report = broker.consume(workers(), broken).dead_letter(DEAD).run_until(redriving).await.unwrap();
    assert_eq!(report.rejected, 8);
}

async fn buried(letters: usize) -> Traced<std::sync::Arc<Memory>> {
    let broker = broker();
    publish(&broker, (0..letters).map(|number| number.to_string())).await;
    let hopeless = async |_: Received| Err::<(), _>(HandlerError::reject("hopeless"));
    let consume = broker.consume(workers(), hopeless).dead_letter(DEAD);
    consume.run_until(tokio::time::sleep(IDLE)).await.unwrap();
    broker
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let broker = buried(300).await;
    broker.publish(DEAD, Message::new("stray")).await.unwrap();
    for _ in 0..2 {
        let looked = broker.redrive(DEAD).idle(IDLE).dry_run().run().await.unwrap();
        assert_eq!((looked.sent_back, looked.left), (300, 1), "more than the usual prefetch, and again");
    }
    let looked = broker.redrive(DEAD).idle(IDLE).dry_run().at_most(5).run().await.unwrap();
    assert_eq!((looked.sent_back, looked.left), (5, 0));
    let redriven = broker.redrive(DEAD).idle(IDLE).run().await.unwrap();
    assert_eq!((redriven.sent_back, redriven.left), (300, 1));
}

#[tokio::test]
async fn it_tells_how_far_it_is_and_stops_when_it_is_told_to() {
    let broker = buried(10).await;
    let (reports, enough) = (parking_lot::Mutex::new(Vec::new()), tokio::sync::Notify::new());
    let redrive = broker.redrive(DEAD).in_flight(1).idle(Duration::from_secs(20)).on_progress(|now| {
        reports.lock().push(now.sent_back);
        if now.sent_back == 4 {
            enough.notify_one();
        }
    });
    let redriven = redrive.run_until(enough.notified()).await.unwrap();
    assert_eq!((redriven.sent_back, reports.into_inner()), (4, vec![1, 2, 3, 4]));
    let redriven = broker.redrive(DEAD).idle(IDLE).run().await.unwrap();
    assert_eq!(redriven.sent_back, 6, "the others are still there");
}

/// A memory broker whose clock is ahead or behind, and whose subscriptions begin with trouble.
#[derive(Debug)]
struct Odd {
    memory: Memory,
    shift: i64,
    trouble: Option<ErrorKind>,
}

#[async_trait::async_trait]
impl Driver for Odd {
    fn identity(&self) -> &Identity {
        self.memory.identity()
    }

    fn capabilities(&self) -> &Capabilities {
        self.memory.capabilities()
    }

    async fn declare(&self, topic: &Topic) -> Result<Destination> {
        self.memory.declare(topic).await
    }

    fn publish(&self, topic: &Topic, message: Outbound, confirmer: Confirmer<Receipt>) {
        self.memory.publish(topic, message, confirmer);
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Source> {
        let hours = Duration::from_secs(3600 * self.shift.unsigned_abs());
        let (ahead, trouble) = (self.shift > 0, self.trouble);
        let mut source = self.memory.subscribe(subscription).await?.map(move |mut inbound| {
            if let Some(stamp) = &mut inbound.timestamp {
                stamp.time = if ahead { stamp.time + hours } else { stamp.time - hours };
            }
            inbound
        });
        let destination = source.destination.clone();
        let trouble = trouble.map(|kind| Err(Error::new(kind, "trouble")));
        let messages = futures_util::stream::poll_fn(move |cx| source.poll_next(cx));
        Ok(Source::new(destination, futures_util::stream::iter(trouble).chain(messages)))
    }

    async fn reposition(&self, subscription: &Subscription, start: Start) -> Result<()> {
        self.memory.reposition(subscription, start).await
    }

    async fn ping(&self) -> Result<()> {
        self.memory.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.memory.close().await
    }
}

/// Buries three messages, and redrives them while their consumer goes on to reject them.
async fn redriven_by(odd: Odd) -> (Result<Redriven>, u64) {
    let (broker, record) = (Traced::new(odd), Record::default());
    publish(&broker, ["a", "b", "c"]).await;
    let broken = async |message: Received| {
        record.add(text(&message));
        Err::<(), _>(HandlerError::reject("still broken"))
    };
    let mut result = Ok(Redriven::default());
    let redriving = async {
        record.reaches(3).await;
        result = broker.redrive(DEAD).idle(IDLE).run().await;
    };
    let report = broker.consume(workers(), broken).dead_letter(DEAD).run_until(redriving).await.unwrap();
    (result, report.rejected)
}

#[tokio::test]
async fn clocks_play_no_part() {
    for shift in [1, -1] {
        let (redriven, rejected) = redriven_by(Odd { memory: Memory::new(), shift, trouble: None }).await;
        let redriven = redriven.unwrap();
        assert_eq!((redriven.sent_back, redriven.left, rejected), (3, 3, 6), "{shift} hours");
    }
}

#[tokio::test]
async fn trouble_that_passes_does_not_end_it() {
    let trouble = Some(ErrorKind::Unavailable);
    let (redriven, _) = redriven_by(Odd { memory: Memory::new(), shift: 0, trouble }).await;
    assert_eq!(redriven.unwrap().sent_back, 3);

    let trouble = Some(ErrorKind::PermissionDenied);
    let (redriven, _) = redriven_by(Odd { memory: Memory::new(), shift: 0, trouble }).await;
    assert_eq!(redriven.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

/// A message names the redrives that sent it back, up to a bound.
#[tokio::test]
async fn a_message_names_its_redrives() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, ["a"]).await;
    let broken = async |message: Received| {
        record.add(message.headers().get_str(header::REDRIVEN).unwrap_or_default());
        Err::<(), _>(HandlerError::reject("still broken"))
    };
    let redriving = async {
        for round in 1..=20 {
            record.reaches(round).await;
            let redriven = broker.redrive(DEAD).at_most(1).run().await.unwrap();
            assert_eq!(redriven.sent_back, 1);
        }
        record.reaches(21).await;
    };
    broker.consume(workers(), broken).dead_letter(DEAD).run_until(redriving).await.unwrap();
    let names = record.lines();
    let counts: Vec<_> = names.iter().map(|names| names.split(',').filter(|name| !name.is_empty()).count()).collect();
    assert_eq!(counts[..4], [0, 1, 2, 3]);
    assert_eq!(counts[16..], [16; 5]);
    assert!(names[20].starts_with(&names[19][17..]), "the oldest goes first");
}

/// They are sent back in order, however many are in flight.
#[tokio::test]
async fn many_letters_keep_their_order() {
    let (broker, record) = (buried(300).await, Record::default());
    let redriven = broker.redrive(DEAD).idle(IDLE).run().await.unwrap();
    assert_eq!(redriven.sent_back, 300);
    let mended = async |message: Received| {
        record.add(text(&message));
        Ok::<_, HandlerError>(())
    };
    broker.consume(workers(), mended).run_until(record.reaches(300)).await.unwrap();
    assert_eq!(record.lines(), (0..300).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// A letter whose payload did not fit is not sent back without it.
#[tokio::test]
async fn a_letter_that_lost_a_part_stays() {
    let broker = broker();
    for cut in ["reason", "reason,headers", "reason,headers,payload"] {
        let letter = Message::new("").header(header::DEAD_LETTER_TOPIC, TOPIC).header(header::DEAD_LETTER_CUT, cut);
        broker.publish(DEAD, letter).await.unwrap();
    }
    let redriven = broker.redrive(DEAD).idle(IDLE).run().await.unwrap();
    assert_eq!((redriven.sent_back, redriven.left), (1, 2));
}

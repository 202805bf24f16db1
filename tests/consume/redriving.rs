//! Sending dead letters back.

use std::time::Duration;
use traced_broker::names::header;

use traced_broker::{HandlerError, Message, Received, Retry, TracedBroker, TracedBrokerExt};

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

async fn buried(letters: usize) -> traced_broker::Traced<std::sync::Arc<traced_broker::adapters::memory::Memory>> {
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
    let redrive = broker.redrive(DEAD).idle(Duration::from_secs(20)).on_progress(|now| {
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

//! Stopping: running handlers finish and are settled, messages not yet begun go back, and none is
//! lost.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use traced_broker::{HandlerError, Received, TracedBroker, TracedBrokerExt};

use crate::shop::{Record, broker, publish, text, workers};

#[tokio::test]
async fn what_runs_ends_and_what_waits_goes_back() {
    let (broker, record, stop) = (broker(), Record::default(), Notify::new());
    publish(&broker, ["k:running", "k:waiting", "k:also waiting"]).await;
    let handler = async |message: Received| {
        stop.notify_one();
        sleep(Duration::from_millis(60)).await;
        record.add(text(&message));
        Ok::<_, HandlerError>(())
    };
    let consume = broker.consume(workers(), handler).concurrency(4).ordered_by_key();
    let report = consume.run_until(async {
        stop.notified().await;
        // Enough time for the messages of the same key to be taken and to wait.
        sleep(Duration::from_millis(20)).await;
    });
    let report = report.await.unwrap();
    assert_eq!(record.lines(), ["running"], "told to stop: nothing is begun any more");
    assert_eq!((report.handled, report.abandoned), (1, 2));
    assert_eq!(rest(&broker).await, ["waiting", "also waiting"]);
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cancelled_and_comes_again() {
    for own_tasks in [false, true] {
        let (broker, record) = (broker(), std::sync::Arc::new(Record::default()));
        publish(&broker, ["endless"]).await;
        let handler = {
            let record = std::sync::Arc::clone(&record);
            move |_: Received| {
                record.add("begun");
                async {
                    sleep(Duration::from_secs(3600)).await;
                    Ok::<_, HandlerError>(())
                }
            }
        };
        let consume = broker.consume(workers(), handler).drain_time(Duration::from_millis(50));
        let begun = Instant::now();
        let report = if own_tasks {
            consume.in_own_tasks().run_until(record.reaches(1)).await
        } else {
            consume.run_until(record.reaches(1)).await
        };
        let report = report.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!((report.handled, report.abandoned), (0, 1), "own tasks: {own_tasks}");
        assert_eq!(rest(&broker).await, ["endless"]);
    }
}

#[tokio::test]
async fn a_consumer_that_is_dropped_gives_everything_back() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, ["a", "b"]).await;
    let handler = async |_: Received| {
        record.add("begun");
        sleep(Duration::from_secs(3600)).await;
        Ok::<_, HandlerError>(())
    };
    tokio::select! {
        _ = broker.consume(workers(), handler).concurrency(2).run() => panic!("it does not end by itself"),
        () = record.reaches(2) => {}
    }
    let mut rest = rest(&broker).await;
    rest.sort();
    assert_eq!(rest, ["a", "b"]);
}

/// Returns the messages that the group still has.
async fn rest(broker: &impl TracedBroker) -> Vec<String> {
    let mut deliveries = broker.subscribe(workers()).await.unwrap();
    let mut rest = Vec::new();
    while let Ok(Some(delivery)) = timeout(Duration::from_millis(200), deliveries.next()).await {
        let delivery = delivery.unwrap();
        rest.push(text(delivery.message()));
        delivery.ack().await.unwrap();
    }
    rest
}

//! Handlers: their number, their tasks, their time limits, and the effects of their results.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use traced_broker::{ErrorKind, HandlerError, Received, Subscription, TracedBroker, TracedBrokerExt};

use crate::shop::{Record, TOPIC, broker, publish, text, workers};

#[tokio::test]
async fn one_at_a_time_unless_told_otherwise() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, (0..20).map(|number| number.to_string())).await;
    let handler = async |message: Received| {
        record.add(format!("begin {}", text(&message)));
        sleep(Duration::from_millis(1)).await;
        record.add(format!("end {}", text(&message)));
        Ok::<_, HandlerError>(())
    };
    let report = broker.consume(workers(), handler).run_until(record.reaches(40)).await.unwrap();
    let expected: Vec<String> =
        (0..20).flat_map(|number| [format!("begin {number}"), format!("end {number}")]).collect();
    assert_eq!(record.lines(), expected);
    assert_eq!((report.handled, report.attempts(), report.abandoned), (20, 20, 0));
}

#[tokio::test]
async fn never_more_than_the_concurrency_and_that_many_indeed() {
    for own_tasks in [false, true] {
        let (broker, record) = (broker(), Arc::new(Record::default()));
        publish(&broker, (0..60).map(|number| number.to_string())).await;
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let handler = {
            let (now, most, record) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&record));
            move |message: Received| {
                let (now, most, record) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&record));
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    sleep(Duration::from_millis(5)).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    record.add(text(&message));
                    Ok::<_, HandlerError>(())
                }
            }
        };
        // A prefetch below the concurrency is raised to it.
        let consume = broker.consume(workers().prefetch(2), handler).concurrency(8);
        let report = if own_tasks {
            consume.in_own_tasks().run_until(record.reaches(60)).await
        } else {
            consume.run_until(record.reaches(60)).await
        };
        assert_eq!(report.unwrap().handled, 60);
        assert_eq!(most.load(Ordering::SeqCst), 8, "own tasks: {own_tasks}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_in_own_tasks_compute_side_by_side() {
    let (broker, record) = (broker(), Arc::new(Record::default()));
    publish(&broker, ["a", "b"]).await;
    let barrier = Arc::new(std::sync::Barrier::new(2));
    let handler = {
        let (barrier, record) = (Arc::clone(&barrier), Arc::clone(&record));
        move |message: Received| {
            let (barrier, record) = (Arc::clone(&barrier), Arc::clone(&record));
            async move {
                // Blocks the thread until the other handler arrives, which would never happen in
                // one task.
                barrier.wait();
                record.add(text(&message));
                Ok::<_, HandlerError>(())
            }
        }
    };
    let stop = {
        let record = Arc::clone(&record);
        async move { record.reaches(2).await }
    };
    let running =
        tokio::spawn(
            async move { broker.consume(workers(), handler).concurrency(2).in_own_tasks().run_until(stop).await },
        );
    assert_eq!(running.await.unwrap().unwrap().handled, 2);
}

#[tokio::test]
async fn works_through_any_broker_behind_a_pointer() {
    let broker: Arc<dyn TracedBroker> = Arc::new(broker());
    let record = Record::default();
    publish(&broker, ["a"]).await;
    let handler = async |message: Received| {
        record.add(text(&message));
        Ok::<_, HandlerError>(())
    };
    let report = broker.consume(workers(), handler).run_until(record.reaches(1)).await.unwrap();
    assert_eq!(report.handled, 1);
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_cancelled_and_retried() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, ["slow", "quick"]).await;
    let handler = async |message: Received| {
        if text(&message) == "slow" && message.attempt() == 1 {
            sleep(Duration::from_secs(3600)).await;
        }
        record.add(format!("{} {}", text(&message), message.attempt()));
        Ok::<_, HandlerError>(())
    };
    let consume = broker.consume(workers(), handler).time_limit(Duration::from_millis(30));
    let report = consume.run_until(record.reaches(2)).await.unwrap();
    assert_eq!(record.lines(), ["quick 1", "slow 2"]);
    assert_eq!((report.handled, report.retried), (2, 1));
}

#[tokio::test]
async fn a_failure_at_most_once_is_counted_and_harms_nobody() {
    let (broker, record) = (broker(), Record::default());
    let handler = async |message: Received| {
        record.add(text(&message));
        if text(&message) == "bad" { Err(HandlerError::reject("bad")) } else { Ok(()) }
    };
    let subscription = Subscription::new(TOPIC).group("once").at_most_once();
    publish(&broker, ["bad", "good"]).await;
    let report = broker.consume(subscription, handler).run_until(record.reaches(2)).await.unwrap();
    assert_eq!(record.lines(), ["bad", "good"]);
    assert_eq!((report.handled, report.failed, report.rejected), (1, 1, 0));
}

#[tokio::test]
async fn refuses_what_cannot_work_before_anything_is_taken() {
    let broker = broker();
    publish(&broker, ["a"]).await;
    let never = async |_: Received| Ok::<_, HandlerError>(());
    for concurrency in [0, 65_536] {
        let error = broker.consume(workers(), never).concurrency(concurrency).run().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("concurrency"), "{error}");
    }
    let error = broker.consume(workers(), never).dead_letter(TOPIC).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let error = broker.consume(workers().prefetch(0), never).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn ends_when_the_broker_is_closed() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, ["a"]).await;
    let handler = async |message: Received| {
        record.add(text(&message));
        Ok::<_, HandlerError>(())
    };
    let closing = async {
        record.reaches(1).await;
        broker.close().await.unwrap();
    };
    let (report, ()) = tokio::join!(broker.consume(workers(), handler).run(), closing);
    assert_eq!(report.unwrap().handled, 1);
}

//! Order by key.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::sleep;
use traced_broker::{HandlerError, Received, Retry, TracedBrokerExt};

use crate::shop::{Record, broker, publish, text, workers};

const KEYS: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_keeps_its_order_at_any_concurrency_and_across_retries() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, (0..1000).map(|number| format!("key{}:{number}", number % KEYS))).await;
    let handler = async |message: Received| {
        let number: usize = text(&message).parse().unwrap();
        if number.is_multiple_of(7) {
            sleep(Duration::from_millis((number % 3) as u64)).await;
        }
        if number.is_multiple_of(50) && message.attempt() < 3 {
            return Err(HandlerError::retry("again"));
        }
        record.add(number.to_string());
        Ok(())
    };
    let retry = Retry::fixed(5, Duration::from_millis(3));
    let consume = broker.consume(workers(), handler).concurrency(64).ordered_by_key().retry(retry);
    let report = consume.run_until(record.reaches(1000)).await.unwrap();
    assert_eq!((report.handled, report.retried), (1000, 40));

    let mut last: HashMap<usize, usize> = HashMap::new();
    for number in record.lines().iter().map(|line| line.parse::<usize>().unwrap()) {
        let before = last.insert(number % KEYS, number);
        assert!(before.is_none_or(|before| before + KEYS == number), "{number} came after {before:?}");
    }
}

#[tokio::test]
async fn a_slow_key_does_not_stop_the_others() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, ["slow:a", "slow:b", "slow:c", "x:1", "y:2", "x:3", "none"]).await;
    let handler = async |message: Received| {
        if message.key().is_some_and(|key| &key[..] == b"slow") {
            sleep(Duration::from_millis(80)).await;
        }
        record.add(text(&message));
        Ok::<_, HandlerError>(())
    };
    let consume = broker.consume(workers(), handler).concurrency(2).ordered_by_key();
    consume.run_until(record.reaches(7)).await.unwrap();
    assert_eq!(record.lines(), ["1", "2", "3", "none", "a", "b", "c"]);
}

/// Keys that wait for a retry take up no place among the handlers.
#[tokio::test]
async fn failing_keys_do_not_stop_the_others() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, (0..20).map(|number| format!("failing{number}:bad"))).await;
    publish(&broker, ["fine:good"]).await;
    let handler = async |message: Received| {
        if text(&message) == "bad" {
            return Err(HandlerError::retry("down"));
        }
        record.add(text(&message));
        Ok(())
    };
    let retry = Retry::fixed(9, Duration::from_secs(3600));
    let consume = broker.consume(workers(), handler).concurrency(4).ordered_by_key().retry(retry);
    let report = consume.run_until(record.reaches(1)).await.unwrap();
    assert_eq!((report.handled, report.retried, report.abandoned), (1, 20, 20));
}

/// At most once, the broker does not limit the number of deliveries.
#[tokio::test]
async fn no_more_wait_behind_a_slow_key_than_the_prefetch() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, (0..50).map(|number| format!("slow:{number}"))).await;
    let handler = async |message: Received| {
        record.add(text(&message));
        sleep(Duration::from_secs(3600)).await;
        Ok::<_, HandlerError>(())
    };
    let subscription = workers().at_most_once().prefetch(5);
    let consume = broker.consume(subscription, handler).concurrency(3).ordered_by_key();
    let stop = async {
        record.reaches(1).await;
        sleep(Duration::from_millis(50)).await;
    };
    let report = consume.drain_time(Duration::ZERO).run_until(stop).await.unwrap();
    assert_eq!((record.lines(), report.abandoned), (vec!["0".to_owned()], 6), "one is worked on, five wait");
}

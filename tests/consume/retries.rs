//! Failures: retried as the policy specifies, then given up.

use std::time::{Duration, Instant};
use traced_broker::names::header;

use futures_util::StreamExt;
use traced_broker::{
    ErrorKind, HandlerError, Received, Retry, Subscription, TracedBroker, TracedBrokerExt, Verdict, connect,
};

use crate::shop::{DEAD, Record, TOPIC, broker, publish, text, workers};

#[tokio::test]
async fn attempts_are_counted_up_to_the_last_and_then_the_message_is_dead() {
    for ordered in [false, true] {
        let (broker, record) = (broker(), Record::default());
        publish(&broker, ["customer:bad", "other:good"]).await;
        let handler = async |message: Received| {
            record.add(format!("{} {}", text(&message), message.attempt()));
            if text(&message) == "bad" { Err(HandlerError::retry("no stock")) } else { Ok(()) }
        };
        let mut dead = broker.subscribe(Subscription::new(DEAD).group("desk")).await.unwrap();
        let mut consume = broker.consume(workers(), handler).dead_letter(DEAD).retry(Retry::immediate(3));
        if ordered {
            consume = consume.ordered_by_key();
        }
        let mut letter = None;
        let arrived = async { letter = dead.next().await };
        let report = consume.run_until(arrived).await.unwrap();
        let bad: Vec<String> = record.lines().into_iter().filter(|line| line.starts_with("bad")).collect();
        assert_eq!(bad, ["bad 1", "bad 2", "bad 3"], "ordered: {ordered}");
        assert_eq!((report.handled, report.retried, report.rejected), (1, 2, 1));

        let letter = letter.unwrap().unwrap();
        let headers = letter.message().headers();
        let header = |name| headers.get_str(name).unwrap_or("none");
        assert_eq!(header(header::DEAD_LETTER_REASON), "given up after 3 attempts: no stock");
        assert_eq!(header(header::DEAD_LETTER_ERROR_TYPE), "handler_error");
        assert_eq!((header(header::DEAD_LETTER_TOPIC), header(header::DEAD_LETTER_ATTEMPTS)), (TOPIC, "3"));
        letter.ack().await.unwrap();
    }
}

#[tokio::test]
async fn delays_are_waited_for_while_others_go_on() {
    for ordered in [false, true] {
        let (broker, record) = (broker(), Record::default());
        publish(&broker, ["a:late", "b:one", "c:two"]).await;
        let begun = Instant::now();
        let handler = async |message: Received| {
            if text(&message) == "late" && message.attempt() < 3 {
                return Err(HandlerError::retry("not yet"));
            }
            record.add(text(&message));
            Ok(())
        };
        let retry = Retry::fixed(5, Duration::from_millis(120)).jitter(0.0);
        let mut consume = broker.consume(workers(), handler).retry(retry);
        if ordered {
            consume = consume.ordered_by_key();
        }
        let report = consume.run_until(record.reaches(3)).await.unwrap();
        assert_eq!(record.lines(), ["one", "two", "late"]);
        assert!(begun.elapsed() >= Duration::from_millis(240), "{:?}", begun.elapsed());
        assert_eq!(report.retried, 2);
    }
}

#[tokio::test]
async fn the_choice_by_error_comes_first() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, ["number", "busy"]).await;
    let handler = async |message: Received| {
        record.add(format!("{} {}", text(&message), message.attempt()));
        if message.attempt() > 1 {
            return Ok(());
        }
        match text(&message).as_str() {
            "number" => Err("x".parse::<u8>().unwrap_err().into()),
            _ => Err(HandlerError::retry("busy")),
        }
    };
    let retry = Retry::fixed(4, Duration::from_millis(1))
        .choose(|error| error.error().is::<std::num::ParseIntError>().then_some(Verdict::Reject));
    let report = broker.consume(workers(), handler).retry(retry).run_until(record.reaches(3)).await.unwrap();
    assert_eq!(record.lines(), ["number 1", "busy 1", "busy 2"]);
    assert_eq!((report.rejected, report.retried, report.handled), (1, 1, 1));
}

#[tokio::test]
async fn a_panic_is_a_failure_like_any_other() {
    let (broker, record) = (broker(), Record::default());
    publish(&broker, ["a"]).await;
    let handler = async |message: Received| {
        record.add(message.attempt().to_string());
        assert!(message.attempt() > 1, "the first attempt panics");
        Ok::<_, HandlerError>(())
    };
    let report = broker.consume(workers(), handler).run_until(record.reaches(2)).await.unwrap();
    assert_eq!((report.handled, report.retried), (1, 1));
}

/// The message is neither lost nor overtaken if its dead letter is refused for good.
#[tokio::test]
async fn a_dead_letter_that_is_refused_stops_the_consumer_and_keeps_the_message_in_its_place() {
    let record = Record::default();
    let broker = connect("memory://unburied").await.unwrap();
    publish(&broker, ["k:first", "k:second"]).await;
    // This connection finds no dead-letter topic and creates none.
    let strict = connect("memory://unburied?topology=check").await.unwrap();
    let handler = async |message: Received| {
        record.add(format!("{} {}", text(&message), message.attempt()));
        if text(&message) == "first" { Err(HandlerError::reject("never")) } else { Ok(()) }
    };
    let consume = strict.consume(workers(), handler).concurrency(2).ordered_by_key().dead_letter(DEAD);
    let error = consume.run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("report="), "{error}");
    assert_eq!(record.lines(), ["first 1"]);

    // It comes first again, and is buried where there is a place for it.
    let mut dead = broker.subscribe(Subscription::new(DEAD).group("desk")).await.unwrap();
    let consume = strict.consume(workers(), handler).concurrency(2).ordered_by_key().dead_letter(DEAD);
    let report = consume.run_until(record.reaches(3)).await.unwrap();
    assert_eq!(record.lines(), ["first 1", "first 1", "second 1"]);
    assert_eq!((report.handled, report.rejected), (1, 1));
    dead.next().await.unwrap().unwrap().ack().await.unwrap();
}

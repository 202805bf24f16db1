use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::timeout;
use traced_broker::{Error, Message, Traced, TracedBroker, TracedBrokerExt};

use crate::driver::{Manual, begin};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_freed_place_goes_to_the_first_in_line_and_not_to_a_newcomer() {
    let driver = Manual::new(2);
    let broker = Traced::new(driver.clone());
    let _first = [begin(&broker, "1"), begin(&broker, "2")];
    let _waits = begin(&broker, "3");
    assert_eq!(driver.given(), ["1", "2"]);

    driver.confirm();
    // The place is free, and no future was polled since.
    let _newcomer = begin(&broker, "4");
    timeout(SOON, driver.was_given(3)).await.expect("the place is given on");
    driver.confirm();
    timeout(SOON, driver.was_given(4)).await.expect("the place is given on");
    assert_eq!(driver.given(), ["1", "2", "3", "4"]);
}

/// Waiting publishes are given out in order, whatever the order in which their tasks wake up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_keep_the_order_of_their_first_polls() {
    let driver = Manual::new(4);
    let broker = Traced::new(driver.clone());
    let publishes: Vec<_> = (0..500).map(|number| begin(&broker, &number.to_string())).collect();
    let _confirming = driver.confirm_all();
    let mut shuffled: Vec<_> = publishes.into_iter().enumerate().map(|(n, publish)| (n * 7 % 500, publish)).collect();
    shuffled.sort_by_key(|(place, _)| *place);
    for (_, publish) in shuffled {
        timeout(SOON, publish).await.expect("an answer").unwrap();
    }
    assert_eq!(driver.given(), (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn publishes_that_wait_for_a_declaration_keep_their_order() {
    let driver = Manual::undeclared(16);
    let broker = Traced::new(driver.clone());
    let _waiting = [begin(&broker, "1"), begin(&broker, "2"), begin(&broker, "3")];
    assert!(driver.given().is_empty());

    driver.let_declare();
    timeout(SOON, driver.was_given(3)).await.expect("the line goes on without its callers");
    let _newcomer = begin(&broker, "4");
    assert_eq!(driver.given(), ["1", "2", "3", "4"]);
    assert_eq!(driver.declared(), ["orders"], "one declaration serves all");
}

/// A stream of publishes, whose futures are not polled meanwhile, and a publish share a task.
#[tokio::test]
async fn a_publish_beside_a_stream_in_one_task_ends() {
    for driver in [Manual::new(4), Manual::undeclared(4)] {
        let broker = Traced::new(driver.clone());
        let _confirming = driver.confirm_all();
        driver.let_declare();
        let all = async {
            let messages = (0..64).map(|number| broker.publish("orders", Message::new(number.to_string())));
            let mut publishes = stream::iter(messages).buffered(8);
            while let Some(result) = publishes.next().await {
                result?;
                broker.publish("orders", Message::new("between")).await?;
            }
            Ok::<_, Error>(())
        };
        timeout(SOON, all).await.expect("no deadlock").unwrap();
        assert_eq!(driver.given().len(), 128);
    }
}

#[tokio::test]
async fn a_publish_beside_publish_all_in_one_task_ends() {
    let driver = Manual::new(4);
    let broker = Traced::new(driver.clone());
    let _confirming = driver.confirm_all();
    let all = async {
        let messages = stream::iter((0..64).map(|number| Message::new(number.to_string())));
        let mut publishes = std::pin::pin!(broker.publish_all("orders", messages, 8));
        while let Some(result) = publishes.next().await {
            result?;
            broker.publish("orders", Message::new("between")).await?;
        }
        Ok::<_, Error>(())
    };
    timeout(SOON, all).await.expect("no deadlock").unwrap();
}

/// A topic too many must not make all others be declared again.
#[tokio::test]
async fn a_full_table_of_topics_forgets_one_and_not_all() {
    let driver = Manual::new(4);
    let broker = Traced::new(driver.clone());
    let _confirming = driver.confirm_all();
    let round = async || {
        let before = driver.declared().len();
        for number in 0..4_097 {
            broker.publish(&format!("topic-{number}"), Message::new("x")).await.unwrap();
        }
        driver.declared().len() - before
    };
    assert_eq!(round().await, 4_097);
    let again = round().await;
    assert!(again < 400, "{again} of 4,097 topics were declared again");
}

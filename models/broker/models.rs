//! Models of the flight table.

use futures_util::future::{Either, select};
use shuttle::future::{JoinHandle, block_on, spawn, yield_now};
use shuttle::rand::{Rng as _, thread_rng};

use super::flights::Answer;
use super::table::{LIMIT, Table};
use crate::checker::Model;
use crate::error::ErrorKind;
use crate::sync::{end_runtime, thread, time};

pub const MODELS: &[Model] = &[
    Model { name: "flights_all_land", run: all_land },
    Model { name: "flights_keep_order", run: keep_order },
    Model { name: "flights_leave", run: leave },
    Model { name: "flights_late_in_queue", run: late_in_queue },
    Model { name: "flights_late_at_driver", run: late_at_driver },
    Model { name: "flights_close", run: close },
    Model { name: "flights_close_late", run: close_late },
    Model { name: "flights_outlive_runtime", run: outlive_runtime },
];

/// Moves the clock until the task has ended.
fn pass_time_until<T>(task: &JoinHandle<T>) {
    while !task.is_finished() {
        time::advance(LIMIT / 8);
        thread::yield_now();
    }
}

/// Every publish gets a place in the end, and no more than the places are taken.
fn all_land() {
    let table = Table::new(thread_rng().gen_range(1..=2));
    let senders = [1, 2, 3, 4].map(|number| table.publish(number));
    table.answer(senders.len());
    block_on(async {
        for sender in senders {
            assert!(sender.await.unwrap().result.is_ok());
        }
        table.close().await;
    });
    table.forget();
}

/// The driver is given the messages of each sender in the order in which they begin.
fn keep_order() {
    let table = Table::new(1);
    let senders = [[11, 12], [21, 22]].map(|numbers| {
        let table = table.clone();
        spawn(async move {
            for flight in numbers.map(|number| table.begin(number, false)) {
                assert!(table.land(flight).await.result.is_ok());
            }
        })
    });
    table.answer(4);
    block_on(async {
        for sender in senders {
            sender.await.unwrap();
        }
    });
    let given = table.driver.given();
    let place = |number| given.iter().position(|other| *other == number).unwrap();
    assert!(place(11) < place(12) && place(21) < place(22), "given as {given:?}");
    table.forget();
}

/// A sender that gives up knows if the driver gets its message, and holds up no other.
fn leave() {
    let table = Table::new(1);
    let (first, last) = (table.publish(1), table.publish(3));
    let leaving = {
        let table = table.clone();
        spawn(async move {
            let mut flight = table.begin(2, false);
            let patience = Box::pin(async {
                yield_now().await;
                yield_now().await;
            });
            let landed = matches!(
                select(Box::pin(flight.land(&table.flights, &table.driver, LIMIT)), patience).await,
                Either::Left(_)
            );
            landed || flight.abandon()
        })
    };
    table.answer(3);
    block_on(async {
        assert!(first.await.unwrap().result.is_ok() && last.await.unwrap().result.is_ok());
        let is_sent = leaving.await.unwrap();
        table.close().await;
        assert_eq!(table.driver.given().contains(&2), is_sent);
    });
    table.forget();
}

/// A publish whose time is up in the queue is not sent, also if it gets a place at that moment.
fn late_in_queue() {
    let table = Table::new(1);
    let senders = [1, 2].map(|number| (number, table.publish(number)));
    table.answer(2);
    time::advance(LIMIT);
    block_on(async {
        for (number, sender) in senders {
            let Answer { result, was_sent, .. } = sender.await.unwrap();
            let is_busy = result.is_err_and(|error| error.kind() == ErrorKind::Busy);
            assert_eq!((is_busy, was_sent), (!was_sent, table.driver.given().contains(&number)));
        }
        table.close().await;
    });
    table.forget();
}

/// A sender is told in time that the driver does not answer, also if another publish ends when it
/// begins. The place is free once the driver answers.
fn late_at_driver() {
    let table = Table::new(2);
    let hung = spawn({
        let table = table.clone();
        async move {
            let answered = table.publish(1);
            table.driver.take().await.confirm(Ok(crate::message::Receipt::confirmed()));
            assert!(answered.await.unwrap().result.is_ok());
            let late = table.publish(2);
            (table.driver.take().await, late.await.unwrap())
        }
    });
    pass_time_until(&hung);
    block_on(async {
        let (confirmer, answer) = hung.await.unwrap();
        assert!(answer.result.is_err_and(|error| error.kind() == ErrorKind::Timeout) && answer.was_sent);
        drop(confirmer);
        table.close().await;
    });
    table.forget();
}

/// Closing waits for what was accepted, and the rest is refused: the driver gets no message later.
fn close() {
    let table = Table::new(1);
    let senders = [1, 2].map(|number| (number, table.publish(number)));
    let declared = {
        let table = table.clone();
        spawn(async move {
            let declaring = table.flights.declaring()?;
            let flight = table.begin(3, true);
            drop(declaring);
            Some(table.land(flight).await)
        })
    };
    table.answer(3);
    block_on(async {
        table.close().await;
        for (number, sender) in senders {
            let Answer { result, was_sent, .. } = sender.await.unwrap();
            assert_eq!((result.is_ok(), was_sent), (was_sent, table.driver.given().contains(&number)));
        }
        assert!(declared.await.unwrap().is_none_or(|answer| answer.result.is_ok()));
    });
    table.forget();
}

/// Closing that takes too long ends, and refuses what waits in the queue.
fn close_late() {
    let table = Table::new(1);
    let senders = [1, 2, 3].map(|number| (number, table.publish(number)));
    let closing = spawn({
        let table = table.clone();
        async move { table.flights.stop(LIMIT / 8).await }
    });
    pass_time_until(&closing);
    senders.iter().for_each(|(_, sender)| pass_time_until(sender));
    block_on(async {
        closing.await.unwrap();
        for (number, sender) in senders {
            let Answer { result, was_sent, .. } = sender.await.unwrap();
            let kind = result.unwrap_err().kind();
            assert_eq!(kind == ErrorKind::Timeout, was_sent);
            assert!(was_sent || [ErrorKind::Closed, ErrorKind::Busy].contains(&kind), "{kind:?}");
            assert_eq!(table.driver.given().contains(&number), was_sent);
        }
    });
    table.forget();
}

/// Waiting publishes go on when the runtime ends in which a task passes them on.
fn outlive_runtime() {
    let table = Table::new(1);
    let senders = [1, 2, 3].map(|number| table.publish(number));
    table.answer(senders.len());
    spawn(async {
        yield_now().await;
        end_runtime();
    });
    block_on(async {
        for sender in senders {
            assert!(sender.await.unwrap().result.is_ok());
        }
        table.close().await;
    });
    table.forget();
}

//! The notes of trials, in the stream beside the queue.

use std::future::poll_fn;
use std::task::Poll;

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer};
use tokio::time::timeout;
use traced_broker::Topic;
use traced_broker::adapters::amqp::Amqp;
use traced_broker::driver::{Disposition, Driver, DriverExt, Inbound, Source};

use crate::attempts::make_queue;
use crate::driving::*;

const GIVE_BACK: Disposition = Disposition::GiveBack;

/// The log of a queue, as an operator sees it.
struct Log {
    channel: Channel,
    stream: ShortString,
    entries: Consumer,
    _connection: lapin::Connection,
}

impl Log {
    async fn open(topic: &Topic) -> Self {
        let connection = raw().await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        channel.basic_qos(1000, BasicQosOptions::default()).await.unwrap();
        let stream = ShortString::from(format!("traced-broker.trials.v1.{topic}.g"));
        let mut first = FieldTable::default();
        first.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
        let options = BasicConsumeOptions::default();
        let entries = channel.basic_consume(stream.clone(), "".into(), options, first).await.unwrap();
        Self { channel, stream, entries, _connection: connection }
    }

    /// Returns the words of the next entry that is no mark of a reader.
    async fn next(&mut self) -> Vec<String> {
        loop {
            let entry = timeout(PATIENCE, self.entries.next()).await.expect("an entry in time").unwrap().unwrap();
            let words = String::from_utf8(entry.data).unwrap();
            if !words.starts_with("mark ") {
                return words.split(' ').map(str::to_owned).collect();
            }
        }
    }

    /// Writes an entry, as another process does.
    async fn write(&self, entry: &str) {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let sent = self.channel.basic_publish("".into(), self.stream.clone(), options, entry.as_bytes(), properties);
        assert!(sent.await.unwrap().await.unwrap().is_ack());
    }
}

async fn publish(amqp: &Amqp, topic: &Topic, payloads: &[&'static str]) {
    for payload in payloads {
        confirmed(amqp.enqueue(topic, outbound(*payload))).await.unwrap();
    }
}

/// Takes so many messages over a connection that ends without a word about them.
async fn lose(topic: &Topic, count: usize) -> Vec<Option<u32>> {
    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(topic, "g")).await;
    let mut lost = Vec::new();
    for _ in 0..count {
        lost.push(next(&mut source).await.lost_trials);
    }
    amqp.close().await.unwrap();
    lost
}

async fn take(source: &mut Source, count: usize) -> (Vec<String>, Vec<Inbound>) {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(next(source).await);
    }
    (taken.iter().map(text).collect(), taken)
}

#[tokio::test]
async fn a_note_is_written_and_withdrawn_and_those_of_other_processes_count() {
    let topic = unique("trials");
    make_group(&topic, "g").await;
    let publisher = connect("").await.unwrap();
    publish(&publisher, &topic, &["a", "b"]).await;
    assert_eq!(lose(&topic, 2).await, [None; 2]);
    assert_eq!(lose(&topic, 2).await, [None; 2]);
    publish(&publisher, &topic, &["c"]).await;

    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let (texts, mut taken) = take(&mut source, 3).await;
    assert_eq!(texts, ["a", "b", "c"], "the order stays");
    assert_eq!(taken.iter().map(|inbound| inbound.lost_trials).collect::<Vec<_>>(), [Some(0), Some(0), None]);
    let fatal = taken.remove(1);
    fatal.handle.begin_trial().await.unwrap();
    fatal.handle.begin_trial().await.unwrap();
    let mut log = Log::open(&topic).await;
    let begun = log.next().await;
    assert_eq!((begun.len(), begun[0].as_str()), (3, "begun"));
    fatal.handle.failed(1);
    assert_eq!(log.next().await, ["heard", &begun[1], &begun[2]], "its failure is known");
    fatal.handle.begin_trial().await.unwrap();
    let again = log.next().await;
    assert!(again[..2] == begun[..2] && again[2] != begun[2], "{again:?} after {begun:?}");
    // Other processes, one of which lives.
    for number in 1..=3 {
        log.write(&format!("begun {} {number}-1", begun[1])).await;
    }
    log.write(&format!("heard {} 2-1", begun[1])).await;
    amqp.close().await.unwrap();

    let amqp = connect("").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let (texts, mut taken) = take(&mut source, 3).await;
    assert_eq!(texts, ["a", "b", "c"]);
    let lost: Vec<_> = taken.iter().map(|inbound| inbound.lost_trials).collect();
    assert_eq!(lost, [Some(0), Some(2), None], "the note of this process does not count");
    drop(fatal);
    settle(taken.remove(1), Disposition::Ack).await.unwrap();
    for _ in 0..4 {
        log.next().await;
    }
    assert_eq!(log.next().await, ["settled", &begun[1]]);
    amqp.close().await.unwrap();
}

#[tokio::test]
async fn a_classic_queue_has_suspects_and_a_note_is_withdrawn_when_the_driver_is_closed() {
    let topic = unique("trials-closed");
    make_queue(&topic, "g", FieldTable::default()).await;
    let amqp = connect("").await.unwrap();
    publish(&amqp, &topic, &["a"]).await;
    amqp.close().await.unwrap();
    // A classic queue only says that it delivers again.
    let amqp = connect("?topology=check").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let inbound = next(&mut source).await;
    assert_eq!((inbound.deliveries, inbound.lost_trials), (Some(1), None));
    settle(inbound, GIVE_BACK).await.unwrap();
    assert_eq!(next(&mut source).await.lost_trials, None, "there is no stream, and none may be made");
    amqp.close().await.unwrap();

    let stream = ShortString::from(format!("traced-broker.trials.v1.{topic}.g"));
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    let channel = raw().await.create_channel().await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(stream, durable, table).await.unwrap();

    let amqp = connect("?topology=check").await.unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let inbound = next(&mut source).await;
    assert_eq!((inbound.deliveries, inbound.lost_trials), (None, Some(0)));
    inbound.handle.begin_trial().await.unwrap();
    drop(inbound);
    amqp.close().await.unwrap();
    let mut log = Log::open(&topic).await;
    assert_eq!(log.next().await[0], "begun");
    assert_eq!(log.next().await[0], "heard");
}

#[tokio::test]
async fn nothing_is_noted_where_the_stream_cannot_be_used() {
    let topic = unique("trials-refused");
    make_group(&topic, "g").await;
    let channel = raw().await.create_channel().await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let taken = ShortString::from(format!("traced-broker.trials.v1.{topic}.g"));
    channel.queue_declare(taken, durable, FieldTable::default()).await.unwrap();
    let amqp = connect("").await.unwrap();
    publish(&amqp, &topic, &["a", "b"]).await;
    for _ in 0..3 {
        assert_eq!(lose(&topic, 2).await, [None; 2]);
    }
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let inbound = next(&mut source).await;
    inbound.handle.begin_trial().await.unwrap();
    settle(inbound, Disposition::Ack).await.unwrap();
    assert_eq!(next_text(&mut source).await, "b");
    amqp.close().await.unwrap();
}

#[tokio::test]
async fn no_stream_is_made_without_a_suspect() {
    let topic = unique("trials-none");
    make_group(&topic, "g").await;
    let amqp = connect("").await.unwrap();
    publish(&amqp, &topic, &["a"]).await;
    for _ in 0..2 {
        assert_eq!(lose(&topic, 1).await, [None]);
    }
    let at_most_once = group(&topic, "g").at_most_once();
    let mut source = subscribe(&amqp, at_most_once).await;
    assert_eq!(next(&mut source).await.lost_trials, None);
    let channel = raw().await.create_channel().await.unwrap();
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let stream = ShortString::from(format!("traced-broker.trials.v1.{topic}.g"));
    channel.queue_declare(stream, passive, FieldTable::default()).await.unwrap_err();
    amqp.close().await.unwrap();
}

#[tokio::test]
async fn suspects_that_are_held_are_given_back_when_the_subscription_stops() {
    let topic = unique("trials-stopped");
    make_group(&topic, "g").await;
    let amqp = connect("").await.unwrap();
    publish(&amqp, &topic, &["a", "b"]).await;
    for _ in 0..2 {
        lose(&topic, 2).await;
    }
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    let begins = poll_fn(|cx| match source.poll_next(cx) {
        // The messages have not come yet, or are held.
        Poll::Pending => Poll::Ready(()),
        Poll::Ready(item) => panic!("a look-up takes time: {item:?}"),
    });
    tokio::time::sleep(SILENCE).await;
    begins.await;
    assert!(source.stop());
    let other = connect("").await.unwrap();
    let mut other_source = subscribe(&other, group(&topic, "g")).await;
    assert_eq!(take(&mut other_source, 2).await.0, ["a", "b"]);
    amqp.close().await.unwrap();
}

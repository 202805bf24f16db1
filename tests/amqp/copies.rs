//! Copies of messages that others wrote: dead letters, what is sent back, and what is forwarded.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, ExchangeKind};
use traced_broker::adapters::amqp::Amqp;
use traced_broker::names::header;
use traced_broker::{HandlerError, Message, Received, Subscription, Topic, Traced, TracedBroker, TracedBrokerExt};

use crate::driving::*;
use crate::wire::*;

/// A topic with a queue of others, where copies are read without this library.
struct Scene {
    topic: Topic,
    dead: Topic,
    broker: Traced<Amqp>,
    channel: Channel,
    _raw: lapin::Connection,
}

impl Scene {
    async fn new() -> Self {
        let (topic, dead) = (unique("copied"), unique("copied-dead"));
        for (topic, group) in [(&topic, "g"), (&topic, "others"), (&dead, "desk"), (&dead, "redrive")] {
            make_group(topic, group).await;
        }
        let raw = raw().await;
        let channel = raw.create_channel().await.unwrap();
        Self { broker: Traced::new(connect("").await.unwrap()), channel, _raw: raw, topic, dead }
    }

    async fn send(&self, routing_key: &str, properties: BasicProperties) {
        let exchange = ShortString::from(self.topic.as_str());
        let publishing =
            self.channel.basic_publish(exchange, routing_key.into(), Default::default(), b"body", properties);
        publishing.await.unwrap();
    }

    /// Rejects one message, and returns the dead letter as it arrived.
    async fn bury(&self) -> Received {
        let refuse = async |_: Received| Err::<(), _>(HandlerError::reject("no"));
        let orders = Subscription::new(self.topic.as_str()).group("g").dead_letter(self.dead.as_str());
        let mut desk = self.broker.subscribe(Subscription::new(self.dead.as_str()).group("desk")).await.unwrap();
        let consumer = self.broker.consume(orders, refuse).subscribed().await.unwrap();
        let mut letter = None;
        consumer.run_until(async { letter = Some(delivered(&mut desk).await) }).await.unwrap();
        letter.unwrap()
    }

    async fn redrive(&self) -> (u64, u64) {
        let redriven = self.broker.redrive(&self.dead).idle(SILENCE * 5).at_most(1).run().await.unwrap();
        (redriven.sent_back, redriven.left)
    }

    /// Takes the next message of a queue of the topic, without this library.
    async fn taken(&self, topic: &Topic, group: &str) -> Taken {
        let queue = ShortString::from(format!("{topic}.{group}"));
        for _ in 0..100 {
            if let Some(got) = self.channel.basic_get(queue.clone(), Default::default()).await.unwrap() {
                got.ack(Default::default()).await.unwrap();
                let delivery = got.delivery;
                return Taken { routing_key: delivery.routing_key.to_string(), properties: delivery.properties };
            }
            tokio::time::sleep(SILENCE / 10).await;
        }
        panic!("no message in {queue}");
    }
}

async fn delivered(deliveries: &mut traced_broker::Deliveries) -> Received {
    use futures_util::StreamExt as _;
    let delivery = tokio::time::timeout(PATIENCE, deliveries.next()).await.unwrap().unwrap().unwrap();
    let message = delivery.message().clone();
    delivery.ack().await.unwrap();
    message
}

struct Taken {
    routing_key: String,
    properties: BasicProperties,
}

impl Taken {
    fn table(&self) -> FieldTable {
        self.properties.headers().clone().unwrap_or_default()
    }
}

/// A header of every kind that others write.
fn typed() -> FieldTable {
    let mut nested = FieldTable::default();
    nested.insert("depth".into(), AMQPValue::LongInt(2));
    let mut table = FieldTable::default();
    table.insert("retries".into(), AMQPValue::LongLongInt(0));
    table.insert("small".into(), AMQPValue::ShortShortInt(-3));
    table.insert("flag".into(), AMQPValue::Boolean(true));
    table.insert("eta".into(), AMQPValue::Void);
    table.insert("ratio".into(), AMQPValue::Double(0.5));
    table.insert("time".into(), AMQPValue::Timestamp(42));
    table.insert("nested".into(), AMQPValue::FieldTable(nested));
    let array = vec![AMQPValue::LongLongInt(1), AMQPValue::LongString("a".into()), AMQPValue::Void];
    table.insert("list".into(), AMQPValue::FieldArray(FieldArray::from(array)));
    table.insert("text".into(), AMQPValue::LongString("plain".into()));
    table.insert("bytes".into(), AMQPValue::ByteArray(vec![0xff, 0].into()));
    table
}

/// The properties that Celery, Spring and MassTransit set.
fn sent() -> BasicProperties {
    BasicProperties::default()
        .with_headers(typed())
        .with_content_type("application/json".into())
        .with_correlation_id("c-1".into())
        .with_message_id("id-1".into())
        .with_type("OrderPlaced".into())
        .with_app_id("shop".into())
        .with_reply_to("answers".into())
        .with_priority(7)
        .with_expiration("600000".into())
}

fn check_typed(taken: &Taken, what: &str) {
    let table = taken.table();
    for (name, value) in typed().inner() {
        assert_eq!(table.inner().get(name), Some(value), "{name} of {what}");
    }
    let (got, sent) = (&taken.properties, sent());
    assert_eq!(got.content_type(), sent.content_type(), "{what}");
    assert_eq!(got.correlation_id(), sent.correlation_id(), "{what}");
    assert_eq!(got.message_id(), sent.message_id(), "{what}");
    assert_eq!(got.kind(), sent.kind(), "{what}");
    assert_eq!(got.app_id(), sent.app_id(), "{what}");
    assert_eq!(got.reply_to(), sent.reply_to(), "{what}");
    assert_eq!(got.priority(), sent.priority(), "{what}");
}

#[tokio::test]
async fn a_dead_letter_and_what_is_sent_back_are_the_message_that_was_sent() {
    let scene = Scene::new().await;
    scene.send("eu.berlin", sent()).await;
    let letter = scene.bury().await;
    assert_eq!(letter.id(), Some("id-1"));
    assert_eq!(letter.headers().get_str(header::AMQP_TYPE), Some("OrderPlaced"));
    let first = scene.taken(&scene.topic, "others").await;
    check_typed(&first, "the original");

    assert_eq!(scene.redrive().await, (1, 0));
    let again = scene.taken(&scene.topic, "others").await;
    check_typed(&again, "what was sent back");
    assert_eq!(again.properties.expiration(), sent().expiration());
    assert_eq!(again.routing_key, "eu.berlin");
    let table = again.table();
    assert!(table.inner().keys().all(|name| !name.as_str().starts_with("dead-letter")), "{table:?}");
}

#[tokio::test]
async fn a_dead_letter_has_the_types_and_does_not_expire() {
    let scene = Scene::new().await;
    make_group(&scene.dead, "raw").await;
    scene.send("eu.berlin", sent()).await;
    scene.bury().await;
    let letter = scene.taken(&scene.dead, "raw").await;
    check_typed(&letter, "the dead letter");
    assert_eq!(letter.properties.expiration(), &None, "a dead letter is kept until it is read");
    assert_eq!(letter.routing_key, "");
    let told = |name: &str| letter.table().inner().get(name).cloned();
    assert_eq!(told(header::AMQP_EXPIRATION), Some(AMQPValue::LongString("600000".into())));
    assert_eq!(told(header::AMQP_ROUTING_KEY), Some(AMQPValue::LongString("eu.berlin".into())));
}

#[tokio::test]
async fn what_is_forwarded_or_bridged_is_the_message_that_was_sent() {
    let scene = Scene::new().await;
    let copies = unique("copied-on");
    for group in ["others", "desk"] {
        make_group(&copies, group).await;
    }
    let copied = async |message: Received| {
        let copy = Message::from(&message).header("mirrored", "true");
        scene.broker.forward(&copies, copy).await?;
        Ok::<_, HandlerError>(())
    };
    scene.send("eu.berlin", sent()).await;
    let orders = || Subscription::new(scene.topic.as_str()).group("g");
    let mut desk = scene.broker.subscribe(Subscription::new(copies.as_str()).group("desk")).await.unwrap();
    scene.broker.consume(orders(), copied).run_until(delivered(&mut desk)).await.unwrap();
    let copy = scene.taken(&copies, "others").await;
    check_typed(&copy, "what was forwarded");
    assert_eq!(copy.routing_key, "eu.berlin");
    assert_eq!(copy.table().inner().get("mirrored"), Some(&AMQPValue::LongString("true".into())));

    scene.send("eu.berlin", sent()).await;
    let bridge = scene.broker.bridge(orders(), &scene.broker, copies.as_str()).at_most(1);
    assert_eq!(bridge.run().await.unwrap().progress.copied, 1);
    let copy = scene.taken(&copies, "others").await;
    check_typed(&copy, "what was bridged");
    assert_eq!(copy.routing_key, "eu.berlin");
    assert_eq!(copy.properties.expiration(), sent().expiration());
}

/// A header that the application changed counts, and keeps no type of another value.
#[tokio::test]
async fn a_changed_header_is_as_the_application_wrote_it() {
    let scene = Scene::new().await;
    scene.send("", sent()).await;
    let mut orders = scene.broker.subscribe(Subscription::new(scene.topic.as_str()).group("g")).await.unwrap();
    let message = delivered(&mut orders).await;
    let mut copy = Message::from(&message);
    copy.headers_mut().insert("retries", "1");
    copy.headers_mut().remove("flag");
    copy.headers_mut().insert("nested", "flat");
    scene.taken(&scene.topic, "others").await;
    scene.broker.forward(&scene.topic, copy).await.unwrap();
    let table = scene.taken(&scene.topic, "others").await.table();
    let value = |name: &str| table.inner().get(name).cloned();
    assert_eq!(value("retries"), Some(AMQPValue::LongString("1".into())));
    assert_eq!(value("flag"), None);
    assert_eq!(value("nested"), Some(AMQPValue::LongString("flat".into())));
    assert_eq!(value("eta"), Some(AMQPValue::Void));
}

/// RabbitMQ's own routing header does not keep a message from being buried, forwarded or sent back.
#[tokio::test]
async fn a_message_with_further_routing_keys_is_copied() {
    let scene = Scene::new().await;
    let mut wire = Wire::connect().await;
    let cc = [&b"A"[..], &6_u32.to_be_bytes(), b"S\0\0\0\x01x"].concat();
    wire.publish_table(&scene.topic, &entry("CC", &cc), b"body").await;
    let letter = scene.bury().await;
    assert_eq!(letter.headers().get_str("bridged-CC"), Some("x"));
    assert_eq!(scene.redrive().await, (1, 0));
}

/// A queue that takes only some routing keys, declared by others. The original comes back to it; a
/// message that no queue would take stays where it is.
#[tokio::test]
async fn what_is_sent_back_is_never_dropped() {
    let (topic, dead) = (unique("bound"), unique("bound-dead"));
    let raw = raw().await;
    let channel = raw.create_channel().await.unwrap();
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let queue_options = QueueDeclareOptions { durable: true, ..Default::default() };
    let queues = [(&topic, "g", "orders.*"), (&dead, "desk", "#"), (&dead, "redrive", "#")];
    for (topic, group, pattern) in queues {
        channel
            .exchange_declare(topic.as_str().into(), ExchangeKind::Topic, durable, FieldTable::default())
            .await
            .unwrap();
        let queue = ShortString::from(format!("{topic}.{group}"));
        channel.queue_declare(queue.clone(), queue_options, FieldTable::default()).await.unwrap();
        let bind = QueueBindOptions::default();
        channel.queue_bind(queue, topic.as_str().into(), pattern.into(), bind, FieldTable::default()).await.unwrap();
    }
    let broker = Traced::new(connect("?topology=check").await.unwrap());
    let scene = Scene { topic, dead, broker, channel, _raw: raw };
    scene.send("orders.new", sent()).await;
    scene.bury().await;
    assert_eq!(scene.redrive().await, (1, 0));
    let back = scene.taken(&scene.topic, "g").await;
    assert_eq!(back.routing_key, "orders.new");

    let unbound = Message::new("x").header(header::DEAD_LETTER_TOPIC, scene.topic.as_str());
    scene.broker.publish(&scene.dead, unbound.clone()).await.unwrap();
    assert_eq!(scene.redrive().await, (0, 1), "without a routing key, no queue takes it");
    assert_eq!(scene.redrive().await, (0, 1), "it is still there");

    // A bridge counts it as refused, too.
    let dead = Subscription::new(scene.dead.as_str()).group("desk");
    let rejects = scene.broker.bridge(dead, &scene.broker, scene.topic.as_str());
    let bridge = rejects.retry(traced_broker::Retry::never()).run_until(tokio::time::sleep(SILENCE * 5));
    assert_eq!(bridge.await.unwrap().progress.copied, 0);
}

//! The brokers' own clients, which know nothing of this library: foreign producers, and operators.

use crate::support::Kind;

/// Publishes messages that this library would not write, and returns their number.
pub(crate) async fn publish(kind: Kind, url: &str, topic: &str) -> usize {
    match kind {
        #[cfg(feature = "kafka")]
        Kind::Kafka => kafka(url, topic).await,
        #[cfg(feature = "amqp")]
        Kind::RabbitMq | Kind::RabbitMq4 => amqp(url, topic).await,
        #[cfg(feature = "nats")]
        Kind::Nats => nats(url, topic).await,
        #[cfg(feature = "redis")]
        Kind::Redis | Kind::Redis8 | Kind::Valkey => redis(url, topic).await,
        other => panic!("{other:?} is no broker of this build: {url} {topic}"),
    }
}

/// Deletes what a topic is at the broker.
pub(crate) async fn delete(kind: Kind, url: &str, topic: &str) {
    match kind {
        #[cfg(feature = "kafka")]
        Kind::Kafka => {
            use rdkafka::admin::{AdminClient, AdminOptions};
            use rdkafka::client::DefaultClientContext;

            let servers = url.trim_start_matches("kafka://").split('?').next().unwrap();
            let mut configuration = rdkafka::ClientConfig::new();
            let admin: AdminClient<DefaultClientContext> =
                configuration.set("bootstrap.servers", servers).create().expect("a client");
            admin.delete_topics(&[topic], &AdminOptions::new()).await.expect("deleted");
        }
        #[cfg(feature = "amqp")]
        Kind::RabbitMq | Kind::RabbitMq4 => {
            use lapin::options::ExchangeDeleteOptions;
            use lapin::{Connection, ConnectionProperties};

            let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("a connection");
            let channel = connection.create_channel().await.expect("a channel");
            channel.exchange_delete(topic.into(), ExchangeDeleteOptions::default()).await.expect("deleted");
            connection.close(200, "done".into()).await.expect("closed");
        }
        #[cfg(feature = "nats")]
        Kind::Nats => {
            let client = async_nats::connect(url.split('?').next().unwrap()).await.expect("a connection");
            let context = async_nats::jetstream::new(client);
            context.delete_stream(topic.replace('.', "~")).await.expect("deleted");
        }
        #[cfg(feature = "redis")]
        Kind::Redis | Kind::Redis8 | Kind::Valkey => {
            let client = ::redis::Client::open(url).expect("an address");
            let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
            let _: i64 = ::redis::cmd("DEL").arg(topic).query_async(&mut connection).await.expect("deleted");
        }
        other => panic!("{other:?} is no broker of this build: {url} {topic}"),
    }
}

/// Deletes what a group is at the broker. Returns `false` on Kafka, where a group that has members
/// cannot be deleted.
pub(crate) async fn delete_group(kind: Kind, url: &str, topic: &str, group: &str) -> bool {
    match kind {
        #[cfg(feature = "amqp")]
        Kind::RabbitMq | Kind::RabbitMq4 => {
            use lapin::options::QueueDeleteOptions;
            use lapin::{Connection, ConnectionProperties};

            let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("a connection");
            let channel = connection.create_channel().await.expect("a channel");
            let queue = format!("{topic}.{group}");
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
            connection.close(200, "done".into()).await.expect("closed");
        }
        #[cfg(feature = "nats")]
        Kind::Nats => {
            let client = async_nats::connect(url.split('?').next().unwrap()).await.expect("a connection");
            let context = async_nats::jetstream::new(client);
            let stream = context.get_stream(topic.replace('.', "~")).await.expect("a stream");
            stream.delete_consumer(&group.replace('.', "~")).await.expect("deleted");
        }
        #[cfg(feature = "redis")]
        Kind::Redis | Kind::Redis8 | Kind::Valkey => {
            let client = ::redis::Client::open(url).expect("an address");
            let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
            let mut destroy = ::redis::cmd("XGROUP");
            let destroyed = destroy.arg("DESTROY").arg(topic).arg(group).query_async(&mut connection).await;
            let _: i64 = destroyed.expect("deleted");
        }
        _ => return false,
    }
    true
}

/// Null keys, headers without a value, bytes that are no text.
#[cfg(feature = "kafka")]
async fn kafka(url: &str, topic: &str) -> usize {
    use rdkafka::message::{Header, OwnedHeaders};
    use rdkafka::producer::{FutureProducer, FutureRecord};
    use rdkafka::util::Timeout;

    let servers = url.trim_start_matches("kafka://").split('?').next().unwrap();
    let producer: FutureProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", servers).create().expect("a producer");
    let binary = OwnedHeaders::new()
        .insert(Header { key: "traceparent", value: Some(b"\xff\xfe\0") })
        .insert(Header::<&[u8]> { key: "null", value: None })
        .insert(Header { key: "", value: Some(b"") });
    // In the partition of the messages that follow, so that they come in order.
    let records: [FutureRecord<'_, str, [u8]>; 4] = [
        FutureRecord::to(topic).key("one").payload(&b"plain"[..]),
        FutureRecord::to(topic).key("one").payload(&b"\xff\0\xfe"[..]).headers(binary),
        FutureRecord::to(topic).key("one").payload(&b""[..]),
        FutureRecord::to(topic).key("one"),
    ];
    let count = records.len();
    for record in records {
        producer.send(record, Timeout::Never).await.expect("the record is stored");
    }
    count
}

/// Header tables of other types, properties of other programs.
#[cfg(feature = "amqp")]
async fn amqp(url: &str, topic: &str) -> usize {
    use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
    use lapin::types::{AMQPValue, FieldTable};
    use lapin::{BasicProperties, Connection, ConnectionProperties};

    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let mut inner = FieldTable::default();
    inner.insert("deep".into(), AMQPValue::LongLongInt(-1));
    let mut table = FieldTable::default();
    table.insert("traceparent".into(), AMQPValue::Boolean(true));
    table.insert("nothing".into(), AMQPValue::Void);
    table.insert("table".into(), AMQPValue::FieldTable(inner));
    table.insert("bytes".into(), AMQPValue::ByteArray(vec![0, 255, 13, 10].into()));
    let plain = BasicProperties::default();
    let properties = [
        plain.clone(),
        plain.clone().with_headers(table),
        plain.clone().with_content_encoding("gzip".into()).with_reply_to("elsewhere".into()).with_priority(255),
        plain.with_timestamp(u64::MAX).with_message_id("".into()),
    ];
    let count = properties.len();
    for properties in properties {
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish(topic.into(), "".into(), options, b"\xff\0\xfe", properties).await;
        sent.expect("sent").await.expect("taken");
    }
    connection.close(200, "done".into()).await.expect("closed");
    count
}

/// No headers at all, several of one name, a reply subject.
#[cfg(feature = "nats")]
async fn nats(url: &str, topic: &str) -> usize {
    let client = async_nats::connect(url.split('?').next().unwrap()).await.expect("a connection");
    let mut headers = async_nats::HeaderMap::new();
    for value in ["", "00-1-1-1", "garbage"] {
        headers.append("traceparent", value);
    }
    let (subject, binary) = (topic.to_owned(), bytes::Bytes::from_static(b"\xff\0\xfe"));
    client.publish(subject.clone(), "plain".into()).await.expect("sent");
    client.publish(subject.clone(), bytes::Bytes::new()).await.expect("sent");
    client.publish_with_headers(subject.clone(), headers, binary.clone()).await.expect("sent");
    client.publish_with_reply(subject, "elsewhere", binary).await.expect("sent");
    client.flush().await.expect("taken");
    4
}

/// Entries without a payload, with fields of other programs, with names that are no text.
#[cfg(feature = "redis")]
async fn redis(url: &str, topic: &str) -> usize {
    let client = ::redis::Client::open(url).expect("an address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let entries: [&[(&[u8], &[u8])]; 4] = [
        &[(b"order", b"7"), (b"amount", b"3")],
        &[(b"payload", b"one"), (b"payload", b"two")],
        &[(b"\xff\xfe", b"x"), (b"", b""), (b"payload", b"\xff\0\xfe")],
        &[(b"traceparent", b"\r\n$-1\r\n")],
    ];
    for fields in entries {
        let mut command = ::redis::cmd("XADD");
        command.arg(topic).arg("*");
        for (name, value) in fields {
            command.arg(*name).arg(*value);
        }
        let _: String = command.query_async(&mut connection).await.expect("stored");
    }
    entries.len()
}

//! Connecting: options, refusals, the escape hatch, and secrets that are never shown.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use traced_broker::adapters::kafka::{GroupProtocol, Kafka};
use traced_broker::driver::Driver;
use traced_broker::{BrokerUrl, ErrorKind, Secret, Subscription, Topic};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_server_answers_a_ping() {
    let kafka = kafka().await;
    kafka.ping().await.unwrap();
    let identity = kafka.identity();
    let (host, port) = BrokerUrl::parse(&format!("kafka://{}", servers())).unwrap().hosts(0).remove(0);
    assert_eq!((identity.system, identity.server_address.as_deref()), ("kafka", Some(&*host)));
    assert_eq!(identity.server_port, Some(port));
    kafka.close().await.unwrap();
    assert_eq!(kafka.ping().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_name_their_cluster() {
    let kafka = kafka().await;
    let topic = Topic::new(&unique("cluster")).unwrap();
    let declared = kafka.declare(&topic).await.unwrap();
    let group = Subscription::new(&*topic).group(&*topic);
    let subscribed = kafka.subscribe(&group).await.unwrap().destination;
    let client: BaseConsumer = kafka.as_client().create().unwrap();
    let id = client.client().fetch_cluster_id(Duration::from_secs(10)).unwrap();
    let expected = vec![("messaging.kafka.cluster.id", id.as_str().into())];
    assert_eq!((declared.attributes, subscribed.attributes), (expected.clone(), expected));
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_option_is_refused_with_the_known_ones() {
    let error = connect(&url_with("partitons=3")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let text = error.to_string();
    for word in ["partitons", "partitions", "topology", "replication", "delivery_timeout", "linger", "mechanism"] {
        assert!(text.contains(word), "{text}");
    }
    for url in ["kafka://localhost/orders", "kafka://localhost?topology=maybe", "kafka://localhost?partitions=0"] {
        assert_eq!(connect(url).await.unwrap_err().kind(), ErrorKind::InvalidConfig, "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_that_the_semantics_rest_on_are_refused() {
    let error = Kafka::builder(servers()).property("enable.auto.commit", "true").connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("enable.auto.commit"), "{error}");

    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", servers()).set("acks", "1");
    let error = Kafka::from_client(client).connect().await.unwrap_err();
    assert!(error.to_string().contains("acks"), "{error}");

    for name in ["transactional.id", "enable.partition.eof", "statistics.interval.ms"] {
        let error = Kafka::builder(servers()).property(name, "1").connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains(name), "{error}");
    }

    let error = Kafka::builder(servers()).property("no.such.property", "1").connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("no.such.property"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_port_is_reported_in_time_and_says_where() {
    // Only root may listen on port 1, and no server does.
    let begun = Instant::now();
    let error = connect("kafka://127.0.0.1:1?connect_timeout=700").await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1") && text.contains("refused") && text.contains("check"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_shown() {
    // The server accepts no credentials, so this must fail.
    let url = format!("kafka://user:hunter2@{}?connect_timeout=1500", servers());
    let error = connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    let builder = Kafka::builder(servers()).credentials("user", Secret::new("hunter2"));
    for shown in [format!("{error:?}"), error.to_string(), format!("{builder:?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let error = builder.property("sasl.mechanism", "NONSENSE").connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn topology_check_creates_nothing() {
    let checking = connect(&url_with("topology=check")).await.unwrap();
    let topic = Topic::new(&unique("missing")).unwrap();
    for _ in 0..2 {
        let error = checking.declare(&topic).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(&*topic), "{error}");
        let error = checking.subscribe(&Subscription::new(&*topic).group(&*topic)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    let creating = kafka().await;
    creating.declare(&topic).await.unwrap();
    checking.declare(&topic).await.unwrap();
    checking.close().await.unwrap();
    creating.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_created_once_with_the_partitions_asked_for() {
    let kafka = connect(&url_with("partitions=3&replication=1")).await.unwrap();
    let topic = Topic::new(&unique("created")).unwrap();
    let (one, two, three) = tokio::join!(kafka.declare(&topic), kafka.declare(&topic), kafka.declare(&topic));
    one.and(two).and(three).unwrap();
    // The escape hatch: a separate client with the settings of this one.
    let client: BaseConsumer = kafka.as_client().create().unwrap();
    let metadata = client.fetch_metadata(Some(&*topic), LONG).unwrap();
    assert_eq!(metadata.topics()[0].partitions().len(), 3);

    let error = connect(&url_with("replication=7")).await.unwrap();
    let error = error.declare(&Topic::new(&unique("replicas")).unwrap()).await.unwrap_err();
    // Brokers that are restarting do not count, either.
    assert!(error.is_retryable(), "{error}");
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_configuration_of_ones_own_works() {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", servers()).set("compression.type", "gzip");
    let kafka = Kafka::from_client(client).partitions(1).connect().await.unwrap();
    let topic = topic(&kafka, "own-client").await;
    publish_numbers(&kafka, &topic, 0..10).await;
    assert_eq!(drain(&mut subscribe(&kafka, &topic, &topic).await, 10).await, (0..10).collect::<Vec<_>>());
    kafka.close().await.unwrap();
}

/// In the protocol in which the broker assigns, it decides about the assignor and the session.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_decides_is_refused_when_connecting() {
    for (name, value) in [("partition.assignment.strategy", "range"), ("session.timeout.ms", "6000")] {
        let settings = Kafka::builder(servers()).group_protocol(GroupProtocol::Consumer);
        let error = settings.property(name, value).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let settings = Kafka::builder(servers()).group_protocol(GroupProtocol::Consumer);
    let kafka = settings.property("group.remote.assignor", "range").connect().await.unwrap();
    let topic = topic(&kafka, "remote").await;
    publish_numbers(&kafka, &topic, 0..3).await;
    drain(&mut subscribe(&kafka, &topic, &topic).await, 3).await;
    kafka.close().await.unwrap();
}

/// The values of properties may be secrets, whatever the name: of one that is misspelled, too.
#[tokio::test(flavor = "multi_thread")]
async fn no_value_of_a_property_is_shown() {
    for name in ["sasl.pasword", "sasl.oauthbearer.assertion.private.key.pem", "security.protocol", "linger.ms"] {
        let error = Kafka::builder(servers()).property(name, "hunter2").connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{name}");
        let mut shown = format!("{error} {error:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            shown += &format!(" {cause} {cause:?}");
            source = cause.source();
        }
        assert!(shown.contains(name) && !shown.contains("hunter2"), "{shown}");
    }
    let kafka = Kafka::builder(servers()).property("client.rack", "hunter2").connect().await.unwrap();
    assert!(!format!("{kafka:?}").contains("hunter2"), "{kafka:?}");
    kafka.close().await.unwrap();
}

//! Compression: what others have compressed is read, whatever codec they use.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use traced_broker::Topic;
use traced_broker::adapters::kafka::Kafka;
use traced_broker::driver::{Driver, DriverExt};

use crate::harness::*;

const CODECS: [&str; 4] = ["gzip", "snappy", "lz4", "zstd"];

/// The broker compresses the messages of such a topic itself, with the codecs of the Java client:
/// what it stores is what a Java producer sends.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_foreign_producer_has_compressed_is_read_with_every_codec() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let admin: AdminClient<DefaultClientContext> = kafka.as_client().create().unwrap();
    for codec in CODECS {
        let topic = Topic::new(&unique(codec)).unwrap();
        let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("compression.type", codec);
        assert!(admin.create_topics([&new], &AdminOptions::new()).await.unwrap()[0].is_ok());
        publish_numbers(&kafka, &topic, 0..100).await;
        let mut source = subscribe(&kafka, &topic, &topic).await;
        for expected in 0..100 {
            let inbound = next_item(&mut source).await.unwrap();
            let inbound = inbound.unwrap_or_else(|error| panic!("{codec}: {error} {error:?}"));
            assert_eq!(number(&inbound), expected, "{codec}");
            ack(inbound).await;
        }
    }
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_compressed_with_every_codec() {
    for codec in CODECS {
        let builder = Kafka::builder(servers()).partitions(1).property("compression.type", codec);
        let kafka = builder.connect().await.unwrap_or_else(|error| panic!("{codec}: {error}"));
        let topic = topic(&kafka, codec).await;
        kafka.enqueue(&topic, outbound(vec![b'x'; 100_000])).await.unwrap();
        let inbound = next(&mut subscribe(&kafka, &topic, &topic).await).await;
        assert_eq!(inbound.payload.unwrap(), vec![b'x'; 100_000], "{codec}");
        kafka.close().await.unwrap();
    }
}

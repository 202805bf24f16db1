//! The best loops with the client crate `async-nats`: publishes whose answers all arrive at one
//! subject and are counted, and a pull consumer that does not wait for acknowledgements, except for
//! the last one, which proves the others.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::{Client, HeaderMap, HeaderName, HeaderValue, jetstream};
use futures_util::StreamExt;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Publishes, confirmed. With `headers`, each message has its own `traceparent`.
pub(crate) async fn publish(
    url: &str,
    topic: &str,
    messages: usize,
    payload: usize,
    in_flight: usize,
    headers: bool,
) -> Duration {
    let client = connect(url).await;
    let payload = bytes::Bytes::from(vec![b'x'; payload]);
    let inbox = async_nats::Subject::from(client.new_inbox());
    let topic = async_nats::Subject::from(topic);
    let mut answers = client.subscribe(inbox.clone()).await.expect("subscribes");
    let begun = Instant::now();
    let (mut sent, mut confirmed) = (0, 0);
    while confirmed < messages {
        while sent < messages && sent - confirmed < in_flight {
            sent += 1;
            let (subject, reply, payload) = (topic.clone(), inbox.clone(), payload.clone());
            let published = match headers {
                true => client.publish_with_reply_and_headers(subject, reply, traceparent(sent), payload).await,
                false => client.publish_with_reply(subject, reply, payload).await,
            };
            published.expect("the client takes it");
        }
        let answer = answers.next().await.expect("the server answers");
        let _: jetstream::publish::PublishAck = serde_json::from_slice(&answer.payload).expect("it is stored");
        confirmed += 1;
    }
    begun.elapsed()
}

/// Consumes as a member of the group and acknowledges all messages.
pub(crate) async fn consume(url: &str, topic: &str, group: &str, messages: usize) -> Duration {
    let stream = jetstream::new(connect(url).await).get_stream(topic.replace('.', "~")).await.expect("a stream");
    let consumer: PullConsumer = stream.get_consumer(group).await.expect("a consumer");
    let mut deliveries = consumer.stream().max_messages_per_batch(1000).messages().await.expect("pulls");
    let mut begun = None;
    for number in 1..=messages {
        let delivery = deliveries.next().await.expect("open").expect("delivered");
        begun.get_or_insert_with(Instant::now);
        std::hint::black_box(delivery.payload.len());
        match number == messages {
            true => delivery.double_ack().await.expect("acknowledged"),
            false => delivery.ack().await.expect("on its way"),
        }
    }
    begun.map(|begun| begun.elapsed()).unwrap_or_default()
}

async fn connect(url: &str) -> Client {
    async_nats::connect(url).await.expect("connects")
}

fn traceparent(number: usize) -> HeaderMap {
    let value = format!("00-{number:032x}-{number:016x}-01").parse::<HeaderValue>().expect("text");
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, value);
    headers
}

//! Typed payloads.

use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use traced_broker::codec::{Codec, Decode, Encode, Json, Raw, decoding};
use traced_broker::names::header;
use traced_broker::{
    BoxError, ErrorKind, HandlerError, Message, Received, Result, Subscription, TracedBroker, TracedBrokerExt,
};

use crate::shop::{DEAD, Record, TOPIC, broker, publish, workers};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    sku: String,
    quantity: u32,
}

/// Numbers as decimal text.
struct Decimal;

impl Codec for Decimal {
    fn content_type(&self) -> Option<&'static str> {
        Some("text/plain")
    }

    fn accepts(&self, media_type: &str) -> bool {
        media_type == "text/plain"
    }
}

impl Encode<u64> for Decimal {
    fn encode(&self, value: &u64) -> Result<Bytes, BoxError> {
        Ok(value.to_string().into())
    }
}

impl Decode<u64> for Decimal {
    fn decode(&self, payload: &Bytes) -> Result<u64, BoxError> {
        Ok(std::str::from_utf8(payload)?.parse()?)
    }
}

#[tokio::test]
async fn values_arrive_as_values_and_what_cannot_be_read_is_dead_with_a_reason() {
    let (broker, record) = (broker(), Record::default());
    let order = Order { sku: "A-1".into(), quantity: 2 };
    let wrong_type = Message::new("{\"sku\":\"A-1\",\"quantity\":2}").header("content-type", "application/xml");
    let untyped = Message::new("{\"sku\":\"B-2\",\"quantity\":1}");
    let messages =
        [Message::encode(&Json, &order).unwrap(), wrong_type, untyped, Message::tombstone(), Message::new("{")];
    for message in messages {
        broker.publish(TOPIC, message).await.unwrap();
    }
    let mut dead = broker.subscribe(Subscription::new(DEAD).group("desk")).await.unwrap();
    let handler = async |order: Order, message: Received| {
        record.add(format!("{} {} {}", order.quantity, order.sku, message.attempt()));
        Ok::<_, HandlerError>(())
    };
    let mut letters = Vec::new();
    let buried = async {
        while letters.len() < 3 {
            letters.push(dead.next().await.unwrap().unwrap());
        }
    };
    let report = broker.consume(workers(), decoding(Json, handler)).dead_letter(DEAD).run_until(buried).await.unwrap();
    assert_eq!(record.lines(), ["2 A-1 1", "1 B-2 1"]);
    assert_eq!((report.handled, report.rejected, report.retried), (2, 3, 0));
    let reasons: Vec<&str> =
        letters.iter().map(|letter| letter.message().headers().get_str(header::DEAD_LETTER_REASON).unwrap()).collect();
    assert!(reasons[0].contains("content type") && reasons[0].contains("application/xml"), "{reasons:?}");
    assert!(reasons[1].contains("no payload"), "{reasons:?}");
    assert!(reasons[2].contains("format or shape"), "{reasons:?}");
    let kinds =
        letters.iter().map(|letter| letter.message().headers().get_str(header::DEAD_LETTER_ERROR_TYPE).unwrap());
    assert!(kinds.clone().all(|kind| kind == "invalid_message"), "{:?}", kinds.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_codec_of_ones_own() {
    let (broker, record) = (broker(), Record::default());
    broker.publish(TOPIC, Message::encode(&Decimal, &7).unwrap()).await.unwrap();
    publish(&broker, ["8"]).await;
    let handler = async |number: u64, message: Received| {
        assert_eq!(message.decode::<Bytes>(&Raw).unwrap(), number.to_string());
        assert!(message.decode::<u64>(&Json).is_ok() || message.headers().contains("content-type"));
        record.add(number.to_string());
        Ok::<_, HandlerError>(())
    };
    let report = broker.consume(workers(), decoding(Decimal, handler)).run_until(record.reaches(2)).await.unwrap();
    assert_eq!((record.lines(), report.handled), (vec!["7".to_owned(), "8".to_owned()], 2));
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let unwritable = std::collections::HashMap::from([((1, 2), 3)]);
    let error = Message::json(&unwritable).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidMessage);
}

//! Messages that foreign publishers may write: each is delivered, its readable parts are read, and
//! the connection survives.

use std::time::{Duration, UNIX_EPOCH};

use traced_broker::driver::{Disposition, Inbound, Source};

use crate::driving::*;
use crate::wire::*;

/// A subscription, and a hand-written publisher to its topic.
struct Scene {
    topic: String,
    source: Source,
    wire: Wire,
    _amqp: traced_broker::adapters::amqp::Amqp,
}

impl Scene {
    async fn new() -> Self {
        let topic = unique("hostile");
        let amqp = connect("").await.unwrap();
        let source = subscribe(&amqp, group(&topic, "g")).await;
        Self { topic: topic.to_string(), source, wire: Wire::connect().await, _amqp: amqp }
    }

    /// Receives a message with this header table, delivered for the first time.
    async fn receive(&mut self, entries: &[u8]) -> Inbound {
        self.wire.publish_table(&self.topic, entries, b"body").await;
        self.arrived().await
    }

    async fn arrived(&mut self) -> Inbound {
        let inbound = next(&mut self.source).await;
        assert_eq!(text(&inbound), "body");
        assert_eq!(inbound.attempt, 1, "delivered once, over one connection");
        inbound
    }

    /// Asserts that the next message arrives at once and for the first time: none was lost or
    /// redelivered.
    async fn unharmed(mut self) {
        let good = self.receive(&entry("good", string("yes"))).await;
        assert_eq!(good.headers.get_str("good"), Some("yes"));
        assert_eq!(good.unreadable_headers, 0);
        settle(good, Disposition::Ack).await.unwrap();
        silent(&mut self.source).await;
    }
}

#[tokio::test]
async fn a_header_of_every_type_is_text() {
    let mut scene = Scene::new().await;
    let cases: [(&[u8], Option<&str>); 17] = [
        (b"S\0\0\0\x02hi", Some("hi")),
        (b"x\0\0\0\x02hi", Some("hi")),
        (b"t\x01", Some("true")),
        (b"b\xff", Some("-1")),
        (b"B\xff", Some("255")),
        (b"s\xff\xfe", Some("-2")),
        (b"u\xff\xfe", Some("65534")),
        (b"I\xff\xff\xff\xff", Some("-1")),
        (b"i\xff\xff\xff\xff", Some("4294967295")),
        (b"l\xff\xff\xff\xff\xff\xff\xff\xff", Some("-1")),
        (b"f\x3f\xc0\0\0", Some("1.5")),
        (b"d\x3f\xf8\0\0\0\0\0\0", Some("1.5")),
        (b"D\x02\0\0\0\x05", Some("0.05")),
        (b"T\0\0\0\0\0\0\0\x2a", Some("42")),
        (b"V", Some("")),
        (b"F\0\0\0\0", None),
        (b"A\0\0\0\x07F\0\0\0\x02\0V", None),
    ];
    for (value, expected) in cases {
        let inbound = scene.receive(&entry("traceparent", value)).await;
        assert_eq!(inbound.headers.get_str("traceparent"), expected, "{value:?}");
        assert_eq!(inbound.unreadable_headers, u32::from(expected.is_none()), "{value:?}");
        settle(inbound, Disposition::Ack).await.unwrap();
    }
    scene.unharmed().await;
}

#[tokio::test]
async fn names_that_are_not_utf_8_are_counted() {
    let mut scene = Scene::new().await;
    let table = [entry(b"caf\xe9", string("1")), entry("ok", string("2")), entry(b"\xff", b"V")].concat();
    let inbound = scene.receive(&table).await;
    assert_eq!(inbound.unreadable_headers, 2);
    assert_eq!(inbound.headers.iter().collect::<Vec<_>>(), [("ok", &b"2"[..])]);
    settle(inbound, Disposition::Ack).await.unwrap();
    scene.unharmed().await;
}

#[tokio::test]
async fn any_depth_of_nesting_is_delivered() {
    for outer in [b'F', b'A'] {
        let mut scene = Scene::new().await;
        // Each level is its type and length, and inside a table also an empty name.
        let level = if outer == b'F' { 6 } else { 5 };
        let depth = (FRAME_MAX - AROUND_TABLE - 200) / level;
        let mut nested = Vec::new();
        for deeper in (0..depth).rev() {
            nested.push(outer);
            nested.extend_from_slice(&((deeper * level) as u32).to_be_bytes());
            if outer == b'F' && deeper > 0 {
                nested.push(0);
            }
        }
        let last = if outer == b'F' { nested.len() - 5 } else { nested.len() };
        nested.truncate(last + 5);
        let table = [entry("deep", nested), entry("after", string("seen"))].concat();
        let inbound = scene.receive(&table).await;
        assert_eq!(inbound.headers.get_str("after"), Some("seen"));
        assert_eq!(inbound.unreadable_headers, 1);
        settle(inbound, Disposition::Ack).await.unwrap();
        scene.unharmed().await;
    }
}

#[tokio::test]
async fn texts_that_are_not_utf_8_are_made_readable() {
    let mut scene = Scene::new().await;
    let flags = CONTENT_TYPE | CORRELATION_ID | MESSAGE_ID;
    let properties = [short(b"text/\xff"), short(b"\xc3\x28"), short(b"id-\x80")].concat();
    scene.wire.publish(&scene.topic, b"key-\xfe", flags, &properties, b"body").await;
    let inbound = scene.arrived().await;
    assert_eq!(inbound.headers.get_str("content-type"), Some("text/?"));
    assert_eq!(inbound.headers.get_str("correlation-id"), Some("?("));
    assert_eq!(inbound.id.as_deref(), Some("id-?"));
    settle(inbound, Disposition::Ack).await.unwrap();
    scene.unharmed().await;
}

#[tokio::test]
async fn odd_names_and_values_arrive_as_they_are() {
    let mut scene = Scene::new().await;
    let long_name = "n".repeat(255);
    let table = [
        entry("", string("no name")),
        entry(&long_name, string("long")),
        entry("nul\0", string(b"\0\r\n\xff")),
        entry("b", string("1")),
        entry("A", string("2")),
        entry("many", b"A\0\0\0\x0eS\0\0\0\x01xt\x01S\0\0\0\x01y"),
    ]
    .concat();
    let inbound = scene.receive(&table).await;
    let mut expected: [(&str, &[u8]); 8] = [
        ("", b"no name"),
        (&long_name, b"long"),
        ("nul\0", b"\0\r\n\xff"),
        ("b", b"1"),
        ("A", b"2"),
        ("many", b"x"),
        ("many", b"true"),
        ("many", b"y"),
    ];
    // RabbitMQ 4 sorts the names.
    let mut arrived: Vec<_> = inbound.headers.iter().collect();
    arrived.sort_by_key(|(name, _)| *name);
    expected.sort_by_key(|(name, _)| *name);
    assert_eq!(arrived, expected);
    settle(inbound, Disposition::Ack).await.unwrap();
    scene.unharmed().await;
}

/// RabbitMQ 4 itself keeps only the first; if both arrive, both are reported.
#[tokio::test]
async fn a_name_given_twice_is_two_headers() {
    let mut scene = Scene::new().await;
    let table = [entry("traceparent", string("one")), entry("traceparent", string("two"))].concat();
    let inbound = scene.receive(&table).await;
    let values: Vec<_> = inbound.headers.get_all("traceparent").collect();
    assert!(values == [b"one", b"two"] || values == [b"one"], "{values:?}");
    settle(inbound, Disposition::Ack).await.unwrap();
    scene.unharmed().await;
}

/// The broker adds its own header to redelivered messages, and then exceeds the negotiated frame
/// size.
#[tokio::test]
async fn a_table_as_large_as_a_frame_is_delivered_again_and_again() {
    let mut scene = Scene::new().await;
    let small = entry("small", string("seen"));
    let filler = FRAME_MAX - AROUND_TABLE - small.len() - entry("big", string("")).len();
    let table = [small, entry("big", string(vec![b'x'; filler]))].concat();
    assert_eq!(table.len() + AROUND_TABLE, FRAME_MAX);
    let mut inbound = scene.receive(&table).await;
    for attempt in 2..4 {
        assert_eq!(inbound.headers.get_str("small"), Some("seen"));
        settle(inbound, Disposition::Retry(Duration::ZERO)).await.unwrap();
        inbound = next(&mut scene.source).await;
        assert_eq!(inbound.attempt, attempt);
    }
    settle(inbound, Disposition::Ack).await.unwrap();
    scene.unharmed().await;
}

/// An array is several headers of its name. One byte of it would take as much as the name.
#[tokio::test]
async fn an_array_does_not_make_a_message_larger_than_its_frame_by_far() {
    let mut scene = Scene::new().await;
    let array = |elements: usize| [b"A".to_vec(), long(&vec![b'V'; elements])].concat();
    let name = vec![b'n'; 255];
    let inbound = scene.receive(&[entry(&name, array(120_000)), entry("last", string("seen"))].concat()).await;
    let bytes: usize = inbound.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(bytes < 2 * FRAME_MAX, "{bytes} bytes of headers");
    assert!(inbound.unreadable_headers > 100_000, "{}", inbound.unreadable_headers);
    assert_eq!(inbound.headers.get_str("last"), Some("seen"));
    settle(inbound, Disposition::Ack).await.unwrap();
    let many: Vec<u8> = (0..400).flat_map(|_| entry(&name, array(40))).collect();
    let inbound = scene.receive(&many).await;
    let bytes: usize = inbound.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(bytes < 2 * FRAME_MAX, "{bytes} bytes of headers, of many arrays");
    settle(inbound, Disposition::Ack).await.unwrap();
    let inbound = scene.receive(&entry("numbers", array(5000))).await;
    assert_eq!(inbound.headers.get_all("numbers").count(), 5000);
    settle(inbound, Disposition::Ack).await.unwrap();
    scene.unharmed().await;
}

#[tokio::test]
async fn an_empty_message_id_is_none() {
    const MESSAGE_ID: u16 = 1 << 7;
    let mut scene = Scene::new().await;
    scene.wire.publish(&scene.topic, b"", MESSAGE_ID, &short(b""), b"body").await;
    let inbound = scene.arrived().await;
    assert_eq!(inbound.id, None);
    settle(inbound, Disposition::Ack).await.unwrap();
    scene.unharmed().await;
}

#[tokio::test]
async fn ten_thousand_headers_are_delivered() {
    let mut scene = Scene::new().await;
    let table: Vec<u8> = (0..10_000).flat_map(|n| entry(format!("h{n}"), b"t\x01")).collect();
    let inbound = scene.receive(&table).await;
    assert_eq!(inbound.headers.len(), 10_000);
    settle(inbound, Disposition::Ack).await.unwrap();
    scene.unharmed().await;
}

#[tokio::test]
async fn times_out_of_range_are_left_out() {
    let mut scene = Scene::new().await;
    let far = u64::MAX.to_be_bytes();
    for milliseconds in [i64::MIN, -1] {
        let table = entry("timestamp_in_ms", [b"l".to_vec(), milliseconds.to_be_bytes().to_vec()].concat());
        let properties = [long(&table), far.to_vec()].concat();
        scene.wire.publish(&scene.topic, b"", HEADERS | TIMESTAMP, &properties, b"body").await;
        let inbound = scene.arrived().await;
        assert_eq!(inbound.timestamp, None);
        settle(inbound, Disposition::Ack).await.unwrap();
    }
    let properties = 1_700_000_000_u64.to_be_bytes();
    scene.wire.publish(&scene.topic, b"", TIMESTAMP, &properties, b"body").await;
    let inbound = scene.arrived().await;
    assert_eq!(inbound.timestamp.unwrap().time, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    settle(inbound, Disposition::Ack).await.unwrap();
    scene.unharmed().await;
}

/// Only the broker's delivery count is trusted.
#[tokio::test]
async fn a_delivery_count_of_the_publishers_is_not_believed() {
    let mut scene = Scene::new().await;
    let count = [b"l".to_vec(), 1000_i64.to_be_bytes().to_vec()].concat();
    let inbound = scene.receive(&entry("x-delivery-count", count)).await;
    settle(inbound, Disposition::Retry(Duration::ZERO)).await.unwrap();
    let again = next(&mut scene.source).await;
    assert_eq!(again.attempt, 2);
    settle(again, Disposition::Ack).await.unwrap();
    scene.unharmed().await;
}

/// The message is put back later: as a copy, or as it is if a copy would be too large.
#[tokio::test]
async fn what_others_wrote_can_be_retried_later() {
    let later = Disposition::Retry(Duration::from_millis(50));
    let mut scene = Scene::new().await;
    let mut deep = b"V".to_vec();
    while deep.len() < 60_000 {
        deep = [&b"A"[..], &long(&deep)].concat();
    }
    let cases = [
        entry("deep", &deep),
        entry(b"\xff\xfe", string("name")),
        [entry("CC", b"A\0\0\0\x08S\0\0\0\x03one"), entry("x-death", b"I\0\0\0\x01")].concat(),
    ];
    for entries in cases {
        let inbound = scene.receive(&[entry("good", string("yes")), entries].concat()).await;
        settle(inbound, later).await.unwrap();
        let inbound = next(&mut scene.source).await;
        assert_eq!((inbound.attempt, inbound.headers.get_str("good")), (2, Some("yes")));
        settle(inbound, Disposition::Ack).await.unwrap();
    }
    let large = entry("large", string(".".repeat(FRAME_MAX - AROUND_TABLE - 100)));
    let inbound = scene.receive(&large).await;
    settle(inbound, later).await.unwrap();
    let inbound = next(&mut scene.source).await;
    assert_eq!((inbound.attempt, text(&inbound)), (2, "body".to_owned()));
    settle(inbound, Disposition::Ack).await.unwrap();
    scene.unharmed().await;
}

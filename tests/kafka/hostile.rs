//! Records that a foreign producer may write, sent as bytes of the protocol, so that no client
//! refuses them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, UNIX_EPOCH};

use traced_broker::Headers;
use traced_broker::driver::{Driver, Inbound};

use crate::harness::*;

type Header<'a> = (&'a [u8], Option<&'a [u8]>);

#[tokio::test(flavor = "multi_thread")]
async fn hostile_headers_neither_crash_nor_lose_anything() {
    let many: Vec<String> = (0..10_000).map(|index| format!("name-{index}")).collect();
    let many: Vec<Header<'_>> = many.iter().map(|name| (name.as_bytes(), Some(&b"v"[..]))).collect();
    let same: Vec<Header<'_>> = vec![(b"traceparent", Some(b"00-1-1-1")); 500];
    let truncated: Vec<Header<'_>> = vec![(b"traceparent\0x", Some(b"v")); 10_000];
    let long = vec![b'n'; 40_000];
    type Case<'a> = (&'a [Header<'a>], &'a [(&'a str, &'a [u8])], u32);
    let cases: [Case<'_>; 8] = [
        (&[], &[], 0),
        (&[(b"\xff\xfe", Some(b"v")), (b"ok", Some(b"1"))], &[("ok", b"1")], 1),
        (&[(b"traceparent\0", Some(b"v")), (b"a\0b", Some(b"")), (b"ok", Some(b"1"))], &[("ok", b"1")], 2),
        (&[(b"\0", Some(b"\0\0")), (b"", Some(b"")), (b"", Some(b"x"))], &[("", b""), ("", b"x")], 1),
        (
            &[(b"null", None), (b"\xc0\x80", None), (b"ok", Some(b"\0\r\n\xff"))],
            &[("null", b""), ("ok", b"\0\r\n\xff")],
            1,
        ),
        (&[(b"\xf0\x9f\x92\xa9", Some(b"v"))], &[("💩", b"v")], 0),
        (&[(&long, Some(&long))], &[(std::str::from_utf8(&long).unwrap(), &long)], 0),
        (&truncated, &[], 10_000),
    ];
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "hostile").await;
    let mut wire = Wire::connect();
    for (headers, ..) in cases {
        wire.produce(&topic, &Record { headers, ..Record::default() });
    }
    wire.produce(&topic, &Record { headers: &many, ..Record::default() });
    wire.produce(&topic, &Record { headers: &same, ..Record::default() });
    let mut source = subscribe(&kafka, &topic, &topic).await;
    for (index, (_, expected, unreadable)) in cases.into_iter().enumerate() {
        let inbound = next(&mut source).await;
        assert_eq!(inbound.headers, expected.iter().copied().collect::<Headers>(), "case {index}");
        assert_eq!(inbound.unreadable_headers, unreadable, "case {index}");
        assert_eq!(inbound.offset, i64::try_from(index).ok());
        ack(inbound).await;
    }
    let inbound = next(&mut source).await;
    assert_eq!((inbound.headers.len(), inbound.unreadable_headers), (10_000, 0));
    assert_eq!(inbound.headers.iter().last(), Some(("name-9999", &b"v"[..])));
    let inbound = next(&mut source).await;
    assert_eq!(inbound.headers.get_all("Traceparent").count(), 500);
    assert!(is_quiet(&mut source).await);
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_headers_than_librdkafka_parses_are_counted_and_the_message_is_delivered() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "flood").await;
    let headers: Vec<Header<'_>> = vec![(b"h", None); 100_001];
    Wire::connect().produce(&topic, &Record { headers: &headers, value: Some(b"kept"), ..Record::default() });
    let inbound = next(&mut subscribe(&kafka, &topic, &topic).await).await;
    assert_eq!(inbound.payload.as_deref(), Some(&b"kept"[..]));
    assert_eq!((inbound.headers.len(), inbound.unreadable_headers), (0, 1));
    kafka.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_ids_and_timestamps_are_delivered() {
    let kafka = connect(&url_with("partitions=1")).await.unwrap();
    let topic = topic(&kafka, "odd").await;
    let mut wire = Wire::connect();
    wire.produce(&topic, &Record { headers: &[(b"message-id", Some(b"\xff"))], ..Record::default() });
    wire.produce(&topic, &Record { timestamp: 0, ..Record::default() });
    wire.produce(&topic, &Record { timestamp: -1, ..Record::default() });
    let mut source = subscribe(&kafka, &topic, &topic).await;
    let Inbound { id, headers, .. } = next(&mut source).await;
    assert_eq!((id, headers.get("message-id")), (None, Some(&b"\xff"[..])));
    assert_eq!(next(&mut source).await.timestamp.unwrap().time, UNIX_EPOCH);
    assert_eq!(next(&mut source).await.timestamp, None);
    kafka.close().await.unwrap();
}

/// A record as it is sent over the wire.
struct Record<'a> {
    headers: &'a [Header<'a>],
    value: Option<&'a [u8]>,
    timestamp: i64,
}

impl Default for Record<'_> {
    fn default() -> Self {
        let now = UNIX_EPOCH.elapsed().unwrap().as_millis();
        Self { headers: &[], value: Some(b"x"), timestamp: i64::try_from(now).unwrap() }
    }
}

/// A connection for hand-written requests.
struct Wire(TcpStream);

impl Wire {
    fn connect() -> Self {
        let servers = servers();
        let stream = TcpStream::connect(servers.split(',').next().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    /// Produces one record to partition 0: request 0 in version 3, acknowledged by all replicas.
    fn produce(&mut self, topic: &str, record: &Record<'_>) {
        let batch = batch(record);
        let mut body = Vec::new();
        body.extend(0_i16.to_be_bytes());
        body.extend(3_i16.to_be_bytes());
        body.extend(7_i32.to_be_bytes());
        short_string(&mut body, "by-hand");
        body.extend((-1_i16).to_be_bytes());
        body.extend((-1_i16).to_be_bytes());
        body.extend(20_000_i32.to_be_bytes());
        body.extend(1_i32.to_be_bytes());
        short_string(&mut body, topic);
        body.extend(1_i32.to_be_bytes());
        body.extend(0_i32.to_be_bytes());
        body.extend(i32::try_from(batch.len()).unwrap().to_be_bytes());
        body.extend(batch);
        self.0.write_all(&i32::try_from(body.len()).unwrap().to_be_bytes()).unwrap();
        self.0.write_all(&body).unwrap();

        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut answer).unwrap();
        // The correlation id, one topic, its name, one partition, its number, the error code.
        let at = 4 + 4 + 2 + topic.len() + 4 + 4;
        assert_eq!(answer[at..at + 2], [0, 0], "the broker refused the record");
    }
}

fn short_string(out: &mut Vec<u8>, text: &str) {
    out.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text.as_bytes());
}

/// Encodes a record batch, version 2, of one record.
fn batch(record: &Record<'_>) -> Vec<u8> {
    let mut inner = vec![0];
    varint(&mut inner, 0);
    varint(&mut inner, 0);
    bytes(&mut inner, None);
    bytes(&mut inner, record.value);
    varint(&mut inner, i64::try_from(record.headers.len()).unwrap());
    for (name, value) in record.headers {
        bytes(&mut inner, Some(name));
        bytes(&mut inner, *value);
    }
    let mut checked = Vec::new();
    checked.extend(0_i16.to_be_bytes());
    checked.extend(0_i32.to_be_bytes());
    checked.extend(record.timestamp.to_be_bytes());
    checked.extend(record.timestamp.to_be_bytes());
    checked.extend((-1_i64).to_be_bytes());
    checked.extend((-1_i16).to_be_bytes());
    checked.extend((-1_i32).to_be_bytes());
    checked.extend(1_i32.to_be_bytes());
    varint(&mut checked, i64::try_from(inner.len()).unwrap());
    checked.extend(inner);
    let mut batch = Vec::new();
    batch.extend(0_i64.to_be_bytes());
    batch.extend(i32::try_from(checked.len() + 9).unwrap().to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend(crc32c(&checked).to_be_bytes());
    batch.extend(checked);
    batch
}

fn bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint(out, -1),
        Some(bytes) => {
            varint(out, i64::try_from(bytes.len()).unwrap());
            out.extend(bytes);
        }
    }
}

/// Encodes zigzag, seven bits per byte, the lowest first.
fn varint(out: &mut Vec<u8>, number: i64) {
    let mut left = ((number << 1) ^ (number >> 63)) as u64;
    while left >= 0x80 {
        out.push((left as u8) | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

/// Computes the checksum with Castagnoli's polynomial, reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

//! Entries written by foreign producers: each is delivered, with its readable headers.

use ::redis::cmd;
use traced_broker::driver::Driver;

use crate::harness::*;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn fields(pairs: &[(&[u8], &[u8])]) -> Fields {
    pairs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivers_whatever_an_entry_holds() {
    let (broker, topic) = (broker().await, topic("hostile"));
    let mut group = broker.subscribe(&of_group(&topic, "g").prefetch(3)).await.unwrap();
    let mut reader = broker.subscribe(&traced_broker::Subscription::new(&*topic)).await.unwrap();
    let many: Fields =
        (0..10_000).map(|n: u32| (format!("name-{n}").into_bytes(), n.to_string().into_bytes())).collect();
    let large = vec![0; 1024 * 1024];
    let cases: Vec<(Fields, &[u8], usize, u32)> = vec![
        (fields(&[(b"payload", b"plain")]), b"plain", 0, 0),
        (fields(&[(b"order", b"7"), (b"amount", b"3")]), b"", 2, 0),
        (fields(&[(b"payload", b"one"), (b"payload", b"two"), (b"key", b"a"), (b"key", b"b")]), b"one", 2, 0),
        (fields(&[(b"\xff\xfe", b"x"), (b"payload", b"p"), (b"\xc0\xaf", b"y"), (b"fine", b"\xff\0\r\n")]), b"p", 1, 2),
        (fields(&[(b"", b""), (b"payload", b""), (b"\0", b"\0"), (b"a\r\nb", b"*3\r\n$-1\r\n")]), b"", 3, 0),
        (fields(&[(b"traceparent", &large), (b"payload", b"q")]), b"q", 1, 0),
        (fields(&[(b"header:", b"1"), (b"header:header:", b"2"), (b"header:payload", b"3")]), b"", 3, 0),
        (fields(&[(b"message-id", b"\xff"), (b"payload", b"r")]), b"r", 1, 0),
        (many, b"", 10_000, 0),
        (fields(&[(b"payload", b"last")]), b"last", 0, 0),
    ];
    let mut raw = Raw::new().await;
    let mut ids = Vec::new();
    for (fields, ..) in &cases {
        let mut command = cmd("XADD");
        command.arg(&*topic).arg("*");
        for (name, value) in fields {
            command.arg(name).arg(value);
        }
        ids.push(raw.call::<String>(&command).await);
    }
    for ((_, payload, headers, unreadable), id) in cases.iter().zip(ids) {
        for source in [&mut group, &mut reader] {
            let message = next(source).await;
            assert_eq!(message.payload.as_deref(), Some(*payload));
            assert_eq!((message.headers.len(), message.unreadable_headers), (*headers, *unreadable), "{payload:?}");
            assert_eq!(message.id.as_ref(), Some(&id));
            ack(message).await.unwrap();
        }
    }
    assert!(raw.pending(&topic, "g").await.is_empty());
    assert_eq!(raw.consumers(&topic, "g").await.len(), 1, "no connection was lost on the way");
    broker.close().await.unwrap();
}

#[tokio::test]
async fn takes_ids_that_no_clock_made() {
    let (broker, topic) = (broker().await, topic("ids"));
    let mut source = subscribe(&broker, &topic, "g").await;
    let mut reader = broker.subscribe(&traced_broker::Subscription::new(&*topic)).await.unwrap();
    let mut raw = Raw::new().await;
    let largest = u64::MAX.to_string();
    for id in ["0-1", "1-1", &format!("{largest}-0"), &format!("{largest}-{largest}")] {
        let _: String = raw.run(&["XADD", &topic, id, "payload", id]).await;
        for source in [&mut source, &mut reader] {
            let message = next(source).await;
            assert_eq!((message.id.as_deref(), text(&message).as_str()), (Some(id), id));
            ack(message).await.unwrap();
        }
    }
    // No id can follow the last possible one; the server reports it, and the message was not
    // stored.
    let error = publish(&broker, &topic, message("x")).await.unwrap_err();
    assert_eq!(error.publish_outcome(), traced_broker::PublishOutcome::NotSent, "{error}");
    broker.close().await.unwrap();
}

//! Bad input from callers and foreign producers; and secrets, which no text may contain.

use std::fmt::Write;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;

use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, refused, text};
use crate::conformance::failure::{Checked, check, check_eq};
use crate::driver::capability::HeaderValues;
use crate::driver::{DriverExt, Outbound};
use crate::error::{ErrorKind, PublishOutcome};
use crate::headers::Headers;
use crate::message::{Message, Start, Subscription, Topic};

crate::conformance::case::cases! { Hostile:
    delivers_messages_with_hostile_context []
        "A message with a broken, foreign or doubled context is delivered without it, or refused and never arrives.";
    carries_odd_headers_or_refuses_them []
        "Header names and values arrive byte for byte, those of one name in order, or the publish is refused and never arrives.";
    carries_many_headers []
        "Two hundred headers arrive.";
    refuses_bad_names_and_bounds []
        "Names and bounds that are not valid are refused before anything happens.";
    refuses_to_move_what_is_no_group []
        "Only a group has a position to move: anything else is refused.";
    keeps_secrets_out_of_every_text []
        "No error, Debug output, name or span contains the secret that the connection was made with.";
}

const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

type Pairs = Vec<(&'static str, Vec<u8>)>;

/// Returns sets of headers, each with a flag that is `true` if its context can be trusted.
fn contexts() -> Vec<(Pairs, bool)> {
    let parent = |value: &str| vec![("traceparent", value.as_bytes().to_vec())];
    let long = "a".repeat(16 * 1024);
    vec![
        (parent(GOOD), true),
        (vec![("Traceparent", GOOD.into())], true),
        (vec![("TRACEPARENT", GOOD.into())], true),
        (vec![("traceparent", GOOD.into()), ("traceparent", GOOD.into())], true),
        (vec![("traceparent", GOOD.into()), ("traceparent", GOOD.replace("01", "00").into())], false),
        (vec![("traceparent", GOOD.into()), ("Traceparent", b"garbage".to_vec())], false),
        (parent(""), false),
        (parent(&GOOD[..54]), false),
        (parent(&format!("{GOOD}0")), false),
        (parent(&format!("{GOOD}-")), false),
        (parent(&GOOD.to_uppercase()), false),
        (parent("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), false),
        (parent("00-00000000000000000000000000000000-00f067aa0ba902b7-01"), false),
        (parent("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"), false),
        (parent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later"), true),
        (parent(&long), false),
        (vec![("traceparent", b"\xff\xfe0\x000\x00-\x00".to_vec())], false),
        (vec![("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736\0-00f067aa0ba902b7-01".to_vec())], false),
        (vec![("traceparent", b"00-4bf92f35\r\nx: y-00f067aa0ba902b7-01".to_vec())], false),
        (vec![("traceparent", GOOD.into()), ("tracestate", b"a=1\r\nx: y".to_vec())], true),
        (vec![("traceparent", GOOD.into()), ("tracestate", long.clone().into_bytes())], true),
        (vec![("traceparent", GOOD.into()), ("baggage", b"k=%0d%0ax,=,;;,a=b=c;%00".to_vec())], true),
        (vec![("traceparent", GOOD.into()), ("baggage", b"\xc0\xaf=\xff".to_vec())], true),
    ]
}

async fn delivers_messages_with_hostile_context(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let topic = Topic::new(&case.topic)?;
    driver.declare(&topic).await?;
    // An ambient span that must not be mistaken for the sender.
    let around = case.root("receiving loop");
    for (index, (pairs, trusted)) in contexts().into_iter().enumerate() {
        let headers: Headers = pairs.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let plain = pairs.iter().all(|(_, value)| is_plain_text(value));
        let message = Outbound { payload: Some(index.to_string().into()), headers, ..Outbound::default() };
        if let Err(error) = driver.enqueue(&topic, message).await {
            check!(!plain || case.capabilities.header_values == HeaderValues::Text, "set {index} is taken: {error}");
            check!(matches!(error.kind(), ErrorKind::InvalidMessage | ErrorKind::TooLarge), "the kind of {error}");
            check_eq!(error.publish_outcome(), PublishOutcome::NotSent, "the outcome of set {index}");
            continue;
        }
        let delivery = case.next(&mut deliveries).await?;
        check_eq!(text(delivery.message().payload()), index.to_string(), "the message");
        let creation = delivery.creation_context();
        check_eq!(creation.span().span_context().is_valid(), trusted, "whether the context of set {index} is trusted");
        let work = delivery.process(|_| async {
            let current = Context::current().span().span_context().clone();
            check!(current.is_valid(), "the handler has a context");
            Ok(())
        });
        let processed = opentelemetry::context::FutureExt::with_context(work, around.clone()).await?;
        check!(processed.error.is_none(), "set {index} is handled: {:?}", processed.error);
    }
    case.nothing_comes(&mut deliveries).await?;
    let around = around.span().span_context().trace_id();
    let spans = case.spans.named(&case.process_name());
    check!(spans.iter().all(|span| span.span_context.trace_id() != around), "no message is in the trace of the loop");
    Ok(())
}

fn is_plain_text(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| !text.chars().any(char::is_control))
}

/// Returns unusual names and values that occur in practice. The first sets, whose number is also
/// returned, are plain and must be carried.
fn odd_headers() -> (Vec<Pairs>, usize) {
    let plain = vec![
        vec![("x-empty", Vec::new())],
        vec![("x-empty", Vec::new()), ("x-after", b"value".to_vec())],
        vec![("X-Mixed-Case", b"Mixed Case Value".to_vec())],
        vec![("x_under_score", b"1".to_vec()), ("x.dots", b"2".to_vec())],
        vec![("x-repeated", b"b".to_vec()), ("x-other", b"a".to_vec()), ("x-repeated", b"a".to_vec())],
        vec![("x-punctuation", br#"a=b; c,"d" {e} [f] \ / % & ?"#.to_vec())],
        vec![("x-unicode", "größer – 東京 🦀".as_bytes().to_vec())],
        vec![("x-number", b"-0012".to_vec()), ("x-flag", b"true".to_vec()), ("x-null", b"null".to_vec())],
        vec![("x-long", vec![b'v'; 8 * 1024])],
    ];
    let odd = vec![
        vec![("x-binary", (0..=255).collect())],
        vec![("x-not-utf8", b"\xff\xfe\xc0\xaf".to_vec())],
        vec![("x-nul", b"before\0after".to_vec())],
        vec![("x-line-break", b"one\r\ntwo: three".to_vec())],
        vec![("x-blanks", b"  around  ".to_vec())],
        vec![("x-tab", b"a\tb".to_vec())],
        vec![("", b"no name".to_vec())],
        vec![("x with blanks", b"1".to_vec())],
        vec![("x:colon", b"1".to_vec())],
        vec![("größe", b"1".to_vec())],
        vec![("x-\u{7f}", b"1".to_vec())],
        vec![("x\r\ny", b"1".to_vec())],
        vec![("x\0y", b"1".to_vec())],
        vec![("payload", b"1".to_vec()), ("key", b"2".to_vec()), ("id", b"3".to_vec())],
        vec![("content-type", b"\x00\x01".to_vec())],
    ];
    let count = plain.len();
    ([plain, odd].concat(), count)
}

async fn carries_odd_headers_or_refuses_them(case: &CaseContext) -> Checked {
    let driver = case.driver().await?;
    let broker = case.traced(driver.clone());
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let topic = Topic::new(&case.topic)?;
    driver.declare(&topic).await?;
    let (sets, plain) = odd_headers();
    for (index, pairs) in sets.into_iter().enumerate() {
        let headers: Headers = pairs.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let message = Outbound { payload: Some(index.to_string().into()), headers, ..Outbound::default() };
        if let Err(error) = driver.enqueue(&topic, message).await {
            check!(index >= plain, "headers of plain text such as {:?} are taken: {error}", pairs[0].0);
            check!(matches!(error.kind(), ErrorKind::InvalidMessage | ErrorKind::TooLarge), "the kind of {error}");
            check_eq!(error.publish_outcome(), PublishOutcome::NotSent, "the outcome");
            continue;
        }
        let delivery = case.next(&mut deliveries).await?;
        check_eq!(text(delivery.message().payload()), index.to_string(), "the message");
        let names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
        // Headers that the adapter itself adds are ignored.
        let mut seen: Vec<(&str, Vec<u8>)> = delivery
            .message()
            .headers()
            .iter()
            .filter(|(seen, _)| names.iter().any(|name| name.eq_ignore_ascii_case(seen)))
            .map(|(name, value)| (name, value.to_vec()))
            .collect();
        // Tables and maps do not keep the order of names. Values of one name stay in order, because
        // sorting is stable.
        seen.sort_by_key(|(name, _)| *name);
        let mut expected = pairs.clone();
        expected.sort_by_key(|(name, _)| *name);
        check_eq!(seen, expected, "the headers {names:?}");
        delivery.ack().await?;
    }
    case.nothing_comes(&mut deliveries).await
}

async fn carries_many_headers(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let mut deliveries = broker.subscribe(case.group("g")).await?;
    let mut names: Vec<String> = (0..200).map(|number| format!("x-header-{number}")).collect();
    let message = names.iter().fold(Message::new("x"), |message, name| message.header(name, name.len().to_string()));
    broker.publish(&case.topic, message).await?;
    let delivery = case.next(&mut deliveries).await?;
    let headers = delivery.message().headers();
    let mut seen: Vec<String> =
        headers.iter().map(|(name, _)| name.to_owned()).filter(|name| name.starts_with("x-header-")).collect();
    seen.sort();
    names.sort();
    check_eq!(seen, names, "the headers");
    delivery.ack().await?;
    Ok(())
}

async fn refuses_bad_names_and_bounds(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    for name in ["", "a b", "orders/eu", "größe", "..", "a*", ">", &"x".repeat(250)] {
        let error = refused("the name", broker.publish(name, Message::new("x")).await)?;
        check_eq!(error.kind(), ErrorKind::InvalidConfig, "the kind of {error}");
        check_eq!(error.publish_outcome(), PublishOutcome::NotSent, "the outcome");
        let error = refused("the name", broker.subscribe(Subscription::new(name)).await)?;
        check_eq!(error.kind(), ErrorKind::InvalidConfig, "the kind of {error}");
    }
    let subscriptions = [
        case.group("a b"),
        case.group("g").prefetch(0),
        case.group("g").prefetch(70_000),
        case.group("g").dead_letter(&case.topic),
        case.group("g").dead_letter(""),
    ];
    for subscription in subscriptions {
        let error = refused("the subscription", broker.subscribe(subscription).await)?;
        check_eq!(error.kind(), ErrorKind::InvalidConfig, "the kind of {error}");
    }
    Ok(())
}

async fn refuses_to_move_what_is_no_group(case: &CaseContext) -> Checked {
    let broker = case.broker().await?;
    let error = refused("moving a reader", broker.reposition(&case.reader(), Start::Earliest).await)?;
    check_eq!(error.kind(), ErrorKind::InvalidConfig, "the kind of {error}");
    Ok(())
}

async fn keeps_secrets_out_of_every_text(case: &CaseContext) -> Checked {
    const SECRET: &str = "hunter2-8f3ac1";
    let mut texts = String::new();
    match case.within("an answer to the credentials", case.harness.connect_with_secret(SECRET)).await? {
        Err(error) => {
            let mut source: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = source {
                write!(texts, "{error} {error:?} ")
                    .map_err(|_| crate::conformance::Failure::new("writing to a string"))?;
                source = error.source();
            }
        }
        Ok(driver) => {
            let broker = case.traced(driver.clone());
            let mut deliveries = broker.subscribe(case.group("g")).await?;
            broker.publish(&case.topic, Message::new("x")).await?;
            let delivery = case.next(&mut deliveries).await?;
            texts +=
                &format!("{driver:?} {broker:?} {:?} {:?} {delivery:?} ", driver.identity(), driver.capabilities());
            texts += &format!(
                "{:?} ",
                delivery.message().headers().iter().map(|(name, value)| (name, text(value))).collect::<Vec<_>>()
            );
            delivery.process(|_| async { Ok(()) }).await?;
            let closing = tokio::time::timeout(Duration::from_secs(30), broker.close()).await;
            texts += &format!("{closing:?} ");
            let errors = [
                broker.publish(&case.topic, Message::new("x")).await.map(drop),
                broker.publish("not a name", Message::new("x")).await.map(drop),
                broker.subscribe(case.group("g")).await.map(drop),
                broker.ping().await,
            ];
            for error in errors.into_iter().filter_map(Result::err) {
                texts += &format!("{error} {error:?} ");
            }
            texts += &format!("{:?}", case.spans.all());
        }
    }
    if let Some(at) = texts.find(SECRET) {
        let around: String = texts[..at].chars().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect();
        check!(false, "no text contains the secret: it follows {around:?}");
    }
    Ok(())
}

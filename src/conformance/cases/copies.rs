//! Copies of messages: dead letters, what is sent back, and what an application forwards.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use crate::broker::{Broker, Deliveries, TracedBroker};
use crate::conformance::case_context::CaseContext;
use crate::conformance::failure::{Checked, Failure, check, check_eq};
use crate::conformance::foreign::Foreign;
use crate::error::ErrorKind;
use crate::message::{HandlerError, Message, Received};
use crate::names::header;
use crate::runtime::TracedBrokerExt;

crate::conformance::case::cases! { Runtime:
    buries_a_message_as_large_as_the_broker_takes [AtLeastOnce]
        "The dead letter of the largest message arrives after one run of the handler, and says what was cut off.";
    buries_a_message_with_headers_as_large_as_the_broker_takes [AtLeastOnce]
        "The dead letter of a message with the largest headers arrives after one run of the handler.";
    buries_a_message_whatever_the_reason_says [AtLeastOnce]
        "A reason with line breaks, control characters or blanks at its ends does not keep a dead letter from arriving.";
    buries_a_message_whatever_its_headers_are [AtLeastOnce]
        "Headers of a foreign producer, in every form that the broker delivers, do not keep a dead letter from arriving.";
    keeps_what_identifies_a_message_in_its_copies [AtLeastOnce]
        "A dead letter has the id and the key of the message, and names its time; what is sent back or forwarded has the id and the key.";
}

/// Maximum size of a payload or header that the cases send, in bytes. A broker that takes more is
/// not at its limit then.
const LARGEST: usize = 4 << 20;

/// Rejects the next message with this reason, by a consumer, and returns the dead letter.
struct Burial {
    broker: Broker,
    dead: Deliveries,
    runs: AtomicUsize,
}

impl Burial {
    async fn new(case: &CaseContext) -> Checked<Self> {
        let broker = case.broker().await?;
        case.make_group("g").await?;
        let dead = broker.subscribe(case.group_on(&case.topic("dead"), "desk")).await?;
        Ok(Self { broker, dead, runs: AtomicUsize::new(0) })
    }

    /// Handles one message, which the handler rejects, until its letter has arrived.
    async fn bury(&mut self, case: &CaseContext, reason: &str) -> Checked<Received> {
        self.runs.store(0, Ordering::Relaxed);
        let handler = async |_: Received| {
            self.runs.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(HandlerError::reject(reason.to_owned()))
        };
        let consume =
            self.broker.consume(case.group("g"), handler).dead_letter(case.topic("dead")).subscribed().await?;
        let (mut letter, dead) = (Err(Failure::new("nothing was awaited")), &mut self.dead);
        consume.run_until(async { letter = case.next(dead).await }).await?;
        let letter = letter?;
        let message = letter.message().clone();
        letter.ack().await?;
        check_eq!(self.runs.load(Ordering::Relaxed), 1, "how often the handler ran for one dead letter");
        check_eq!(message.headers().get_str(header::DEAD_LETTER_TOPIC), Some(&*case.topic), "the origin of the letter");
        Ok(message)
    }
}

/// Publishes the largest of these messages that the broker takes, and returns its size.
async fn largest(
    case: &CaseContext,
    sizes: impl Iterator<Item = usize>,
    message: fn(usize) -> Message,
) -> Checked<usize> {
    let broker = case.broker().await?;
    for size in sizes {
        match broker.publish(&case.topic, message(size)).await {
            Ok(_) => {
                broker.close().await?;
                return Ok(size);
            }
            Err(error) => check_eq!(error.kind(), ErrorKind::TooLarge, "the error of {size} bytes: {error}"),
        }
    }
    Err(Failure::new("the broker takes a message of some size"))
}

/// Checks that a letter says what was cut off, if it was.
fn check_said(letter: &Received, size: usize) -> Checked {
    let cut = letter.headers().get_str(header::DEAD_LETTER_CUT).unwrap_or_default();
    if cut.contains("payload") {
        check!(letter.payload().is_empty(), "a payload that was cut off is left out as a whole");
        let said = letter.headers().get_str(header::DEAD_LETTER_PAYLOAD_SIZE);
        check_eq!(said, Some(&*size.to_string()), "the size of the payload that was cut off");
    } else {
        check_eq!(letter.payload().len(), size, "the size of the payload");
    }
    check!(letter.headers().contains(header::DEAD_LETTER_REASON), "a letter has a reason, however short");
    Ok(())
}

async fn buries_a_message_as_large_as_the_broker_takes(case: &CaseContext) -> Checked {
    let mut burial = Burial::new(case).await?;
    let limit = case.capabilities.max_payload.unwrap_or(LARGEST).min(LARGEST);
    let sizes = (0..100).map(|step| limit.saturating_sub(step * 64));
    let message = |size| Message::new(Bytes::from(vec![b'x'; size])).key("k");
    let size = largest(case, sizes, message).await?;
    let letter = burial.bury(case, &"why ".repeat(500)).await?;
    check_said(&letter, size)?;
    check_eq!(letter.key().map(|key| &key[..]), Some(&b"k"[..]), "the key");
    // The next one is as good as ever.
    burial.broker.publish(&case.topic, Message::new("small").header("tenant", "acme")).await?;
    let letter = burial.bury(case, "no").await?;
    check!(!letter.headers().contains(header::DEAD_LETTER_CUT), "nothing is cut off a letter that fits");
    check_eq!(letter.headers().get_str("tenant"), Some("acme"), "a header of the application");
    Ok(())
}

async fn buries_a_message_with_headers_as_large_as_the_broker_takes(case: &CaseContext) -> Checked {
    let mut burial = Burial::new(case).await?;
    let sizes = (0..300).map(|step| 131_072 - step * 256);
    let message = |size| Message::new("small").header("large", vec![b'x'; size]);
    largest(case, sizes, message).await?;
    let letter = burial.bury(case, &"why ".repeat(500)).await?;
    check_said(&letter, "small".len())
}

async fn buries_a_message_whatever_the_reason_says(case: &CaseContext) -> Checked {
    let mut burial = Burial::new(case).await?;
    let cut_at_a_blank = format!("{} and more", "x".repeat(1023));
    let reasons =
        ["ends with a line break\n", "  begins with blanks", &cut_at_a_blank, "a\r\nb: c", "\u{7f}\u{85}\0", " ", ""];
    for reason in reasons {
        burial.broker.publish(&case.topic, Message::new("x")).await?;
        let letter = burial.bury(case, reason).await?;
        let told = letter.headers().get_str(header::DEAD_LETTER_REASON).unwrap_or_default();
        check!(!told.chars().any(char::is_control), "a reason is one line: {told:?}");
        let first = reason.split_whitespace().next().unwrap_or_default().trim_matches(char::is_control);
        check!(told.starts_with(first), "the reason for {reason:?} is told: {told:?}");
    }
    Ok(())
}

async fn buries_a_message_whatever_its_headers_are(case: &CaseContext) -> Checked {
    let mut burial = Burial::new(case).await?;
    let foreign = Foreign::on(case, case.driver().await?).await?;
    let headers: [(&str, &[u8]); 9] = [
        ("a b", b"name with a blank"),
        ("caf\u{e9}", b"name with an accent"),
        ("latin", b"caf\xe9"),
        ("raw", b"\xff\0\xfe"),
        ("split", b"a\r\nb: c"),
        ("bare", b"a\rb"),
        ("padded", b" \t x \n"),
        ("message-key", b"other"),
        ("", b"no name"),
    ];
    for pair in headers {
        if foreign.publish("x", &[pair, ("tenant", b"acme")]).await? {
            let letter = burial.bury(case, "no").await?;
            check_eq!(letter.headers().get_str("tenant"), Some("acme"), "the header beside {pair:?}");
            check_eq!(letter.key().map(|key| &key[..]), Some(&b"one"[..]), "the key beside {pair:?}");
        }
    }
    Ok(())
}

async fn keeps_what_identifies_a_message_in_its_copies(case: &CaseContext) -> Checked {
    let mut burial = Burial::new(case).await?;
    let (dead, copies) = (case.topic("dead"), case.topic("copies"));
    drop(burial.broker.subscribe(case.group_on(&dead, "redrive")).await?);
    let mut forwarded = burial.broker.subscribe(case.group_on(&copies, "desk")).await?;
    let mut orders = burial.broker.subscribe(case.group("other")).await?;
    burial.broker.publish(&case.topic, Message::new("x").id("order-A-1").key("k")).await?;
    let first = case.next(&mut orders).await?;
    let original = first.message().clone();
    burial.broker.forward(&copies, Message::from(&original)).await?;
    first.ack().await?;
    let copy = case.next(&mut forwarded).await?;
    check_same(copy.message(), &original, "what was forwarded")?;
    copy.ack().await?;

    let letter = burial.bury(case, "no").await?;
    check_same(&letter, &original, "the dead letter")?;
    let time = original.timestamp().map(|stamp| stamp.time.duration_since(UNIX_EPOCH).unwrap_or_default());
    let time = time.map(|time| time.as_millis().to_string());
    check_eq!(letter.headers().get_str(header::DEAD_LETTER_TIMESTAMP), time.as_deref(), "the time of the original");

    let idle = Duration::from_secs(5).max(case.harness.quiet());
    let redrive = burial.broker.redrive(&dead).group(case.group_name("redrive")).idle(idle).at_most(1);
    check_eq!(redrive.run().await?.sent_back, 1, "how many letters were sent back");
    let again = case.next(&mut orders).await?;
    check_same(again.message(), &original, "what was sent back")?;
    check!(!again.message().headers().contains(header::DEAD_LETTER_TIMESTAMP), "what was sent back is no letter");
    again.ack().await?;
    Ok(())
}

fn check_same(copy: &Received, original: &Received, what: &str) -> Checked {
    check_eq!(copy.id(), original.id(), "the id of {what}");
    check_eq!(copy.id(), Some("order-A-1"), "the id of {what}");
    check_eq!(copy.key(), original.key(), "the key of {what}");
    check_eq!(copy.payload(), original.payload(), "the payload of {what}");
    Ok(())
}

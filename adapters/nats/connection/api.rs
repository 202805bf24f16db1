//! Requests to JetStream's API: JSON in both directions, with one way of reading errors.
//!
//! Requests and answers are JSON values, whose code is compiled once, within `serde_json`.

use async_nats::{Message, StatusCode, Subject};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use crate::error::{Error, ErrorKind, PublishOutcome, Result};

use super::super::error::{self, Refusal};
use super::info::{ConsumerConfig, ConsumerInfo, StreamInfo, missing, number, object, text};
use super::link::Link;

const API: &str = "$JS.API";

/// Level of the JetStream API from which messages can be delayed: that of server 2.12.
pub(crate) const DELAY_LEVEL: u64 = 2;

/// Returns the level of the API, which tells what the server can do: 0 before 2.11, 2 from 2.12 on,
/// 4 from 2.14 on.
///
/// Fails if there is no JetStream to talk to.
pub(crate) async fn level(link: &Link) -> Result<u64> {
    let account = call(link, "INFO", object([])).await;
    account.map(|account| number(&account["api"]["level"])).map_err(|error| match error.kind() {
        ErrorKind::Unsupported | ErrorKind::Unavailable if error.publish_outcome() == PublishOutcome::NotSent => {
            let message =
                "the server has no JetStream for this account: enable it (nats-server --jetstream), or use ?mode=core";
            Error::new(ErrorKind::Unsupported, message).with_source(error)
        }
        _ => error,
    })
}

/// Returns the name of the stream that takes a subject, if there is one.
pub(crate) async fn stream_of(link: &Link, subject: &str) -> Result<Option<String>> {
    let names = call(link, "STREAM.NAMES", object([("subject", subject.into())])).await?;
    Ok(names["streams"][0].as_str().map(str::to_owned))
}

pub(crate) async fn stream(link: &Link, name: &str) -> Result<StreamInfo> {
    StreamInfo::read(&call(link, &format!("STREAM.INFO.{name}"), object([])).await?)
}

pub(crate) async fn create_stream(link: &Link, name: &str, config: Value) -> Result<StreamInfo> {
    StreamInfo::read(&call(link, &format!("STREAM.CREATE.{name}"), config).await?)
}

pub(crate) async fn consumer(link: &Link, stream: &str, name: &str) -> Result<ConsumerInfo> {
    ConsumerInfo::read(call(link, &format!("CONSUMER.INFO.{stream}.{name}"), object([])).await?)
}

/// Creates a consumer. An existing consumer with the same configuration counts as created.
pub(crate) async fn create_consumer(link: &Link, stream: &str, config: ConsumerConfig) -> Result<ConsumerInfo> {
    let mut endpoint = format!("CONSUMER.CREATE.{stream}.{}", config.text("name"));
    if !config.text("filter_subject").is_empty() {
        endpoint = format!("{endpoint}.{}", config.text("filter_subject"));
    }
    let request =
        object([("stream_name", stream.into()), ("config", config.into_value()), ("action", "create".into())]);
    ConsumerInfo::read(call(link, &endpoint, request).await?)
}

/// Moves a consumer to a sequence in the stream. Its earlier deliveries no longer count; waiting
/// members get the messages from there on.
pub(crate) async fn reset_consumer(link: &Link, stream: &str, name: &str, sequence: u64) -> Result<()> {
    call(link, &format!("CONSUMER.RESET.{stream}.{name}"), object([("seq", sequence.into())])).await.map(drop)
}

pub(crate) async fn delete_consumer(link: &Link, stream: &str, name: &str) -> Result<()> {
    call(link, &format!("CONSUMER.DELETE.{stream}.{name}"), object([])).await.map(drop)
}

/// Deletes a consumer without waiting, because the server would delete it later anyway.
pub(crate) fn forget_consumer(link: &Link, stream: &str, name: &str) {
    let _ = link.tell(format!("{API}.CONSUMER.DELETE.{stream}.{name}").into(), "".into());
}

/// Returns the subject that every user of JetStream may send requests to.
pub(crate) fn info() -> Subject {
    format!("{API}.INFO").into()
}

/// Returns the subject on which to request the next messages of a consumer.
pub(crate) fn next_of(stream: &str, consumer: &str) -> Subject {
    format!("{API}.CONSUMER.MSG.NEXT.{stream}.{consumer}").into()
}

/// A message as the stream stores it, with its header block untouched.
#[derive(Debug)]
pub(crate) struct StoredMessage {
    pub(crate) sequence: u64,
    /// The time of storage, in RFC 3339.
    pub(crate) time: String,
    pub(crate) headers: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// Reads the first message at a subject of a stream from this sequence on; `None` if there is none.
pub(crate) async fn next_message(
    link: &Link,
    stream: &str,
    subject: &str,
    sequence: u64,
) -> Result<Option<StoredMessage>> {
    find_message(link, stream, object([("seq", sequence.into()), ("next_by_subj", subject.into())])).await
}

/// Reads the last message at a subject of a stream, as its leader has it; `None` if there is none.
pub(crate) async fn last_message(link: &Link, stream: &str, subject: &str) -> Result<Option<StoredMessage>> {
    find_message(link, stream, object([("last_by_subj", subject.into())])).await
}

/// Deletes a message of a stream without waiting.
pub(crate) fn forget_message(link: &Link, stream: &str, sequence: u64) {
    let request = object([("seq", sequence.into()), ("no_erase", true.into())]);
    let _ = link.tell(format!("{API}.STREAM.MSG.DELETE.{stream}").into(), request.to_string().into());
}

/// Deletes a message of a stream. Fails if it is no longer there.
pub(crate) async fn delete_message(link: &Link, stream: &str, sequence: u64) -> Result<()> {
    let request = object([("seq", sequence.into()), ("no_erase", true.into())]);
    call(link, &format!("STREAM.MSG.DELETE.{stream}"), request).await.map(drop)
}

/// Deletes the messages at these subjects of a stream.
pub(crate) async fn purge(link: &Link, stream: &str, subjects: &str) -> Result<()> {
    call(link, &format!("STREAM.PURGE.{stream}"), object([("filter", subjects.into())])).await.map(drop)
}

async fn find_message(link: &Link, stream: &str, request: Value) -> Result<Option<StoredMessage>> {
    match call(link, &format!("STREAM.MSG.GET.{stream}"), request).await {
        Ok(found) => StoredMessage::read(&found["message"]).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl StoredMessage {
    fn read(message: &Value) -> Result<Self> {
        Ok(Self {
            sequence: message["seq"].as_u64().ok_or_else(|| missing("seq"))?,
            time: text(&message["time"]).to_owned(),
            headers: base64(&message["hdrs"])?,
            payload: base64(&message["data"])?,
        })
    }
}

fn base64(value: &Value) -> Result<Vec<u8>> {
    STANDARD.decode(text(value)).map_err(error::unreadable)
}

async fn call(link: &Link, endpoint: &str, request: Value) -> Result<Value> {
    let request = Bytes::from(request.to_string());
    let answer = link.request(format!("{API}.{endpoint}").into(), request).await?;
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(Error::new(ErrorKind::Unavailable, "JetStream does not answer: it is off, or starting"));
    }
    read(&answer)
}

/// Reads an answer, which may be a refusal.
pub(crate) fn read(answer: &Message) -> Result<Value> {
    let answer = std::str::from_utf8(&answer.payload).map_err(error::unreadable)?;
    let answer: Value = answer.parse().map_err(error::unreadable::<serde_json::Error>)?;
    match &answer["error"] {
        Value::Null => Ok(answer),
        refusal => Err(Refusal::read(refusal).into()),
    }
}

//! Requests to JetStream's API: JSON in both directions, with one way of reading errors.

use async_nats::jetstream::{consumer, stream};
use async_nats::{StatusCode, Subject};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use crate::error::{Error, ErrorKind, PublishOutcome, Result};

use super::super::error::{self, Refusal};
use super::link::Link;

const API: &str = "$JS.API";

/// Level of the JetStream API from which messages can be delayed: that of server 2.12.
pub(crate) const DELAY_LEVEL: u64 = 2;

/// Returns the level of the API, which tells what the server can do: 0 before 2.11, 2 from 2.12 on,
/// 4 from 2.14 on.
///
/// Fails if there is no JetStream to talk to.
pub(crate) async fn level(link: &Link) -> Result<u64> {
    #[derive(Deserialize)]
    struct Account {
        #[serde(default)]
        api: Api,
    }
    #[derive(Deserialize, Default)]
    struct Api {
        #[serde(default)]
        level: u64,
    }
    let account = call::<Account>(link, "INFO", &json!({})).await;
    account.map(|account| account.api.level).map_err(|error| match error.kind() {
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
    #[derive(Deserialize)]
    struct Names {
        streams: Option<Vec<String>>,
    }
    let names: Names = call(link, "STREAM.NAMES", &json!({ "subject": subject })).await?;
    Ok(names.streams.and_then(|streams| streams.into_iter().next()))
}

pub(crate) async fn stream(link: &Link, name: &str) -> Result<stream::Info> {
    call(link, &format!("STREAM.INFO.{name}"), &json!({})).await
}

pub(crate) async fn create_stream(link: &Link, config: &stream::Config) -> Result<stream::Info> {
    call(link, &format!("STREAM.CREATE.{}", config.name), config).await
}

pub(crate) async fn consumer(link: &Link, stream: &str, name: &str) -> Result<consumer::Info> {
    call(link, &format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await
}

/// Creates a consumer. An existing consumer with the same configuration counts as created.
pub(crate) async fn create_consumer(link: &Link, stream: &str, config: &consumer::Config) -> Result<consumer::Info> {
    let name = config.name.as_deref().unwrap_or_default();
    let mut endpoint = format!("CONSUMER.CREATE.{stream}.{name}");
    if !config.filter_subject.is_empty() {
        endpoint = format!("{endpoint}.{}", config.filter_subject);
    }
    call(link, &endpoint, &json!({ "stream_name": stream, "config": config, "action": "create" })).await
}

/// Moves a consumer to a sequence in the stream. Its earlier deliveries no longer count; waiting
/// members get the messages from there on.
pub(crate) async fn reset_consumer(link: &Link, stream: &str, name: &str, sequence: u64) -> Result<()> {
    call::<IgnoredAny>(link, &format!("CONSUMER.RESET.{stream}.{name}"), &json!({ "seq": sequence })).await.map(drop)
}

pub(crate) async fn delete_consumer(link: &Link, stream: &str, name: &str) -> Result<()> {
    call::<IgnoredAny>(link, &format!("CONSUMER.DELETE.{stream}.{name}"), &json!({})).await.map(drop)
}

/// Deletes a consumer without waiting, because the server would delete it later anyway.
pub(crate) fn forget_consumer(link: &Link, stream: &str, name: &str) {
    let _ = link.tell(format!("{API}.CONSUMER.DELETE.{stream}.{name}").into(), "".into());
}

/// Returns the subject on which to request the next messages of a consumer.
pub(crate) fn next_of(stream: &str, consumer: &str) -> Subject {
    format!("{API}.CONSUMER.MSG.NEXT.{stream}.{consumer}").into()
}

/// A message as the stream stores it, with its header block untouched.
#[derive(Debug, Deserialize)]
pub(crate) struct StoredMessage {
    pub(crate) subject: String,
    #[serde(rename = "seq")]
    pub(crate) sequence: u64,
    /// The time of storage, in RFC 3339.
    pub(crate) time: String,
    #[serde(default, rename = "hdrs", deserialize_with = "base64")]
    pub(crate) headers: Vec<u8>,
    #[serde(default, rename = "data", deserialize_with = "base64")]
    pub(crate) payload: Vec<u8>,
}

/// Reads one message of a stream; `None` if it is no longer there.
pub(crate) async fn stored_message(link: &Link, stream: &str, sequence: u64) -> Result<Option<StoredMessage>> {
    #[derive(Deserialize)]
    struct Found {
        message: StoredMessage,
    }
    let found = call::<Found>(link, &format!("STREAM.MSG.GET.{stream}"), &json!({ "seq": sequence })).await;
    match found {
        Ok(found) => Ok(Some(found.message)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
}

async fn call<T: DeserializeOwned>(link: &Link, endpoint: &str, request: &impl Serialize) -> Result<T> {
    #[derive(Deserialize)]
    struct Refused {
        error: Option<Refusal>,
    }
    let payload = serde_json::to_vec(request).map_err(error::unreadable)?;
    let answer = link.request(format!("{API}.{endpoint}").into(), payload.into()).await?;
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(Error::new(ErrorKind::Unavailable, "JetStream does not answer: it is off, or starting"));
    }
    let refused: Refused = serde_json::from_slice(&answer.payload).map_err(error::unreadable)?;
    if let Some(refusal) = refused.error {
        return Err(refusal.into());
    }
    serde_json::from_slice(&answer.payload).map_err(error::unreadable)
}

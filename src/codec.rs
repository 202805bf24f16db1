//! How values become payloads and back: JSON, raw bytes, or a codec of the application's own.
//!
//! The content type travels in the header [`content-type`](crate::message::CONTENT_TYPE). A message that names another one than
//! the codec reads, or that cannot be decoded, is an [`InvalidMessage`](ErrorKind::InvalidMessage): as a handler's result, that
//! rejects it, so that it goes to the dead-letter topic with the reason, and with its trace.

use std::future::{Future, Ready, ready};

use bytes::Bytes;
use futures_util::future::Either;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::handler::HandlerError;
use crate::message::{CONTENT_TYPE, Message};
use crate::received::Received;

/// A format of payloads.
pub trait Codec: Send + Sync {
    /// The media type that messages are published with; `None` for none.
    fn content_type(&self) -> Option<&'static str>;

    /// Whether payloads of this media type (lower case, without parameters) can be decoded.
    fn accepts(&self, media_type: &str) -> bool;
}

/// Writes values of type `T`.
pub trait Encode<T: ?Sized>: Codec {
    /// The value as a payload.
    ///
    /// # Errors
    /// What keeps it from being written.
    fn encode(&self, value: &T) -> Result<Bytes, BoxError>;
}

/// Reads values of type `T`.
pub trait Decode<T>: Codec {
    /// The value that the payload holds.
    ///
    /// # Errors
    /// What is wrong with the payload.
    fn decode(&self, payload: &Bytes) -> Result<T, BoxError>;
}

/// JSON by `serde`: `application/json`; reads every media type that ends in `json`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

/// Bytes as they are: no content type, reads any.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

/// Makes a handler of messages out of one of values: decodes the payload first.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use serde::{Deserialize, Serialize};
/// use traced_broker::codec::{Json, decoding};
/// use traced_broker::{HandlerError, Message, Received, Subscription, TracedBroker, TracedBrokerExt, connect};
///
/// #[derive(Serialize, Deserialize)]
/// struct Order { sku: String, quantity: u32 }
///
/// async fn ship(order: Order, message: Received) -> Result<(), HandlerError> {
///     println!("attempt {} to ship {} of {}", message.attempt(), order.quantity, order.sku);
///     Ok(())
/// }
///
/// let broker = connect("memory://").await?;
/// broker.publish("orders", Message::encode(&Json, &Order { sku: "A-1".into(), quantity: 2 })?).await?;
/// broker.publish("orders", Message::new("not JSON at all")).await?;
/// let workers = Subscription::new("orders").group("workers").dead_letter("orders.dead");
/// let shutdown = tokio::time::sleep(std::time::Duration::from_millis(50));
/// let report = broker.consume(workers, decoding(Json, ship)).run_until(shutdown).await?;
/// assert_eq!((report.handled, report.rejected), (1, 1));
/// # Ok(()) }
/// ```
pub fn decoding<C, T, H, F, R>(codec: C, handler: H) -> impl Fn(Received) -> Decoding<F, R>
where
    C: Decode<T>,
    H: Fn(T, Received) -> F,
    F: Future<Output = Result<R, HandlerError>>,
{
    move |message| match message.decode(&codec) {
        Ok(value) => Either::Left(handler(value, message)),
        Err(error) => Either::Right(ready(Err(error.into()))),
    }
}

/// The future of a handler that is [`decoding`].
pub type Decoding<F, R> = Either<F, Ready<Result<R, HandlerError>>>;

impl Codec for Json {
    fn content_type(&self) -> Option<&'static str> {
        Some("application/json")
    }

    fn accepts(&self, media_type: &str) -> bool {
        media_type.ends_with("/json") || media_type.ends_with("+json")
    }
}

impl<T: Serialize + ?Sized> Encode<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        Ok(serde_json::to_vec(value)?.into())
    }
}

impl<T: DeserializeOwned> Decode<T> for Json {
    fn decode(&self, payload: &Bytes) -> Result<T, BoxError> {
        Ok(serde_json::from_slice(payload)?)
    }
}

impl Codec for Raw {
    fn content_type(&self) -> Option<&'static str> {
        None
    }

    fn accepts(&self, _media_type: &str) -> bool {
        true
    }
}

impl Encode<Bytes> for Raw {
    fn encode(&self, value: &Bytes) -> Result<Bytes, BoxError> {
        Ok(value.clone())
    }
}

impl Decode<Bytes> for Raw {
    fn decode(&self, payload: &Bytes) -> Result<Bytes, BoxError> {
        Ok(payload.clone())
    }
}

impl Message {
    /// A message with `value` as the codec writes it, and the codec's content type.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMessage`] when the codec cannot write it.
    pub fn encode<T: ?Sized>(codec: &impl Encode<T>, value: &T) -> Result<Self> {
        let payload = codec.encode(value).map_err(|error| {
            Error::new(ErrorKind::InvalidMessage, "the value cannot be written as a payload").with_source(error)
        })?;
        let message = Self::new(payload);
        Ok(match codec.content_type() {
            Some(content_type) => message.header(CONTENT_TYPE, content_type),
            None => message,
        })
    }
}

impl Received {
    /// The payload as the codec reads it. A message without a content type is taken for what the codec reads.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMessage`] when the message names another content type, has no payload, or cannot be decoded; as a
    /// handler's result, it rejects the message, since trying again cannot help.
    pub fn decode<T>(&self, codec: &impl Decode<T>) -> Result<T> {
        if let Some(content_type) = self.headers().get(CONTENT_TYPE)
            && !media_type(content_type).is_some_and(|media_type| codec.accepts(&media_type))
        {
            let shown: String =
                String::from_utf8_lossy(content_type).chars().take(64).flat_map(char::escape_default).collect();
            return Err(self
                .invalid("the content type is not one that is expected here")
                .with_context("content-type", shown));
        }
        if self.is_tombstone() {
            return Err(self.invalid("the message has no payload to decode"));
        }
        codec
            .decode(self.payload())
            .map_err(|error| self.invalid("the payload is not of the expected format or shape").with_source(error))
    }

    fn invalid(&self, message: &str) -> Error {
        Error::new(ErrorKind::InvalidMessage, message).with_context("topic", self.topic())
    }
}

/// The media type of a content type: lower case, without parameters.
fn media_type(content_type: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(content_type).ok()?;
    let essence = text.split(';').next()?.trim();
    Some(essence.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_compared_by_their_essence() {
        for json in
            ["application/json", "Application/JSON; charset=utf-8", " application/cloudevents+json ;v=1", "text/json"]
        {
            assert!(Json.accepts(&media_type(json.as_bytes()).unwrap_or_default()), "{json}");
        }
        for other in ["", "json", "application/jsonlines", "text/plain; application/json", "application/json5"] {
            assert!(!Json.accepts(&media_type(other.as_bytes()).unwrap_or_default()), "{other}");
        }
        assert_eq!(media_type(b"\xff"), None);
    }
}

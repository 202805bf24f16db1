//! Codecs between values and payloads: JSON, raw bytes, or a codec of the application.
//!
//! The content type travels in the header [`content-type`](header::CONTENT_TYPE). A message with a
//! content type that the codec does not accept, or with a payload that cannot be decoded, is an
//! [`InvalidMessage`](ErrorKind::InvalidMessage). As a handler's result, this error rejects the
//! message, so it is copied to the dead-letter topic with the reason and its trace.

use std::future::{Future, Ready, ready};

use bytes::Bytes;
use futures_util::future::Either;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Message;
use super::handler::HandlerError;
use super::received::Received;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::names::header;

/// A format of payloads.
///
/// ```
/// # fn main() -> traced_broker::Result<()> {
/// use bytes::Bytes;
/// use traced_broker::codec::{Codec, Decode, Encode};
/// use traced_broker::{BoxError, ErrorKind, Message};
///
/// /// Comma-separated numbers.
/// struct Csv;
///
/// impl Codec for Csv {
///     fn content_type(&self) -> Option<&'static str> {
///         Some("text/csv")
///     }
///
///     fn accepts(&self, media_type: &str) -> bool {
///         media_type == "text/csv"
///     }
/// }
///
/// impl Encode<[f64]> for Csv {
///     fn encode(&self, values: &[f64]) -> Result<Bytes, BoxError> {
///         if values.iter().any(|value| !value.is_finite()) {
///             return Err("a value is not finite".into());
///         }
///         let cells: Vec<String> = values.iter().map(f64::to_string).collect();
///         Ok(cells.join(",").into())
///     }
/// }
///
/// impl Decode<Vec<f64>> for Csv {
///     fn decode(&self, payload: &Bytes) -> Result<Vec<f64>, BoxError> {
///         let cells = std::str::from_utf8(payload)?.split(',');
///         Ok(cells.map(str::parse).collect::<Result<_, _>>()?)
///     }
/// }
///
/// let message = Message::encode(&Csv, &[1.5, 2.0][..])?;
/// assert_eq!(message.payload(), b"1.5,2");
/// let values: Vec<f64> = Csv.decode(&"1.5,2".into()).expect("valid");
/// assert_eq!(values, [1.5, 2.0]);
///
/// let error = Message::encode(&Csv, &[f64::NAN][..]).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidMessage);
/// # Ok(()) }
/// ```
pub trait Codec: Send + Sync {
    /// Returns the media type that messages are published with; `None` to set none.
    fn content_type(&self) -> Option<&'static str>;

    /// Returns `true` if payloads of this media type (lower case, without parameters) can be
    /// decoded.
    fn accepts(&self, media_type: &str) -> bool;
}

/// A codec that writes values of type `T`.
pub trait Encode<T: ?Sized>: Codec {
    /// Returns the value as a payload.
    ///
    /// # Errors
    /// Any error that prevents the value from being written.
    fn encode(&self, value: &T) -> Result<Bytes, BoxError>;
}

/// A codec that reads values of type `T`.
pub trait Decode<T>: Codec {
    /// Returns the value that the payload contains.
    ///
    /// # Errors
    /// Any error of the payload.
    fn decode(&self, payload: &Bytes) -> Result<T, BoxError>;
}

/// The JSON codec, based on `serde`. Writes `application/json`; reads every media type that ends in
/// `/json` or `+json`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

/// The codec for plain bytes: sets no content type and reads any.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

/// Turns a handler of values into a handler of messages, which decodes the payload first.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use serde::{Deserialize, Serialize};
/// use traced_broker::codec::{Json, decoding};
/// use traced_broker::{HandlerError, Message, Received, Subscription};
/// use traced_broker::{TracedBroker, TracedBrokerExt, connect};
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
/// let order = Order { sku: "A-1".into(), quantity: 2 };
/// broker.publish("orders", Message::encode(&Json, &order)?).await?;
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

/// The future of a [`decoding`] handler.
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
    /// Creates a message with `value` as JSON and the content type `application/json`.
    ///
    /// ```
    /// # fn main() -> traced_broker::Result<()> {
    /// use std::collections::HashMap;
    /// use traced_broker::{ErrorKind, Message};
    ///
    /// let message = Message::json(&[1, 2])?;
    /// assert_eq!(message.payload(), b"[1,2]");
    ///
    /// let keys_that_are_no_text = HashMap::from([([1, 2], "a")]);
    /// let error = Message::json(&keys_that_are_no_text).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidMessage);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMessage`] if `value` cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        Self::encode(&Json, value)
    }

    /// Creates a message with `value` as written by the codec, and the codec's content type.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMessage`] if the codec cannot write the value.
    pub fn encode<T: ?Sized>(codec: &impl Encode<T>, value: &T) -> Result<Self> {
        let payload = codec.encode(value).map_err(|error| {
            Error::new(ErrorKind::InvalidMessage, "the value cannot be written as a payload").with_source(error)
        })?;
        let message = Self::new(payload);
        Ok(match codec.content_type() {
            Some(content_type) => message.header(header::CONTENT_TYPE, content_type),
            None => message,
        })
    }
}

impl Received {
    /// Decodes the payload as JSON; the same as [`decode`](Self::decode) with [`Json`].
    ///
    /// # Errors
    /// The errors of [`decode`](Self::decode).
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        self.decode(&Json)
    }

    /// Decodes the payload with the codec. A message without a content type is assumed to be in the
    /// codec's format.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// use futures_util::StreamExt;
    /// use traced_broker::codec::{Json, Raw};
    /// use traced_broker::{ErrorKind, Message, Subscription, TracedBroker, connect};
    ///
    /// let broker = connect("memory://").await?;
    /// let mut orders = broker.subscribe(Subscription::new("orders").group("workers")).await?;
    /// broker.publish("orders", Message::new("3").header("content-type", "text/plain")).await?;
    /// let delivery = orders.next().await.expect("open")?;
    ///
    /// let error = delivery.message().decode::<u32>(&Json).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidMessage); // the content type is not JSON
    /// assert_eq!(delivery.message().decode(&Raw)?, "3");
    /// delivery.ack().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMessage`] if the message has another content type, has no payload, or
    /// cannot be decoded. As a handler's result, this error rejects the message, because another
    /// attempt cannot succeed.
    pub fn decode<T>(&self, codec: &impl Decode<T>) -> Result<T> {
        self.try_decode(codec).inspect_err(|error| {
            self.parts.undecodable.get_or_init(|| error.to_string());
        })
    }

    fn try_decode<T>(&self, codec: &impl Decode<T>) -> Result<T> {
        if let Some(content_type) = self.headers().get(header::CONTENT_TYPE)
            && !media_type(content_type).is_some_and(|media_type| codec.accepts(&media_type))
        {
            let shown: String =
                String::from_utf8_lossy(content_type).chars().take(64).flat_map(char::escape_default).collect();
            return Err(self
                .invalid("the content type is not one that the codec accepts")
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

/// Returns the media type of a content type: lower case, without parameters.
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

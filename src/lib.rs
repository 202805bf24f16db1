#![doc = include_str!("../README.md")]
// One small module of the Kafka adapter is the exception.
#![cfg_attr(not(feature = "kafka"), forbid(unsafe_code))]

pub mod address;
#[cfg_attr(feature = "tracing", path = "ambient_tracing.rs")]
mod ambient;
pub mod bridge;
pub mod broker;
mod broker_ext;
pub mod broker_url;
pub mod capability;
pub mod carrier;
pub mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod connect;
pub mod consume;
mod consumer;
pub mod current;
pub mod dead_letter;
mod delivery;
pub mod dialect;
pub mod driver;
pub mod error;
#[cfg(feature = "testing")]
mod exported;
mod handler;
pub mod headers;
pub mod health;
mod held;
mod intern;
pub mod job;
mod latency;
pub mod message;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod propagation;
mod publisher;
mod received;
pub mod redrive;
pub mod request;
mod shutdown;
pub mod span;
#[cfg(feature = "testing")]
pub mod testing;
mod tracer;
pub mod verify;
pub mod w3c;

#[path = "../adapters/mod.rs"]
pub mod adapters;

pub use address::{Guarantee, Start, Subscription, Topic};
pub use bridge::{Bridge, Bridged};
pub use broker::{Broker, Traced, TracedBroker};
pub use broker_ext::TracedBrokerExt;
pub use broker_url::{BrokerUrl, Secret, Topology};
pub use capability::Capabilities;
pub use connect::{SCHEMES, connect};
pub use consume::{Consume, Report, Retry};
pub use consumer::Deliveries;
pub use current::{TraceIds, in_current, in_current_fn, trace_ids};
pub use delivery::{Delivery, Processed, Settlement};
pub use dialect::Dialect;
pub use error::{Error, ErrorKind, Result};
pub use handler::{HandlerError, Verdict};
pub use headers::Headers;
pub use health::Health;
pub use job::{Job, JobStyle, TraceReference};
pub use message::{Message, PublishOutcome, Receipt};
pub use propagation::{Hop, TracePolicy, TrustBoundary};
pub use received::Received;
pub use shutdown::shutdown_signal;

/// The code in the guide is tested.
#[cfg(doctest)]
#[doc = include_str!("../docs/how-a-trace-crosses-a-queue.md")]
pub struct HowATraceCrossesAQueue;

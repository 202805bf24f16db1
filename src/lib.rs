//! placeholder

pub mod address;
pub mod broker_url;
pub mod capability;
pub mod driver;
pub mod error;
pub mod headers;
pub mod message;
pub mod propagation;
pub mod received;
pub mod w3c;

pub use address::{Guarantee, Start, Subscription, Topic};
pub use broker_url::{BrokerUrl, Secret, Topology};
pub use capability::Capabilities;
pub use error::{Error, ErrorKind, Result};
pub use headers::Headers;
pub use message::{Message, PublishOutcome, Receipt};
pub use propagation::TracePolicy;
pub use received::Received;

#[path = "../adapters/mod.rs"]
pub mod adapters;

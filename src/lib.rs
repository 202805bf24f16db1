#![doc = include_str!("front.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
// One small module of the Kafka adapter is the exception.
#![cfg_attr(not(feature = "kafka"), forbid(unsafe_code))]

mod broker;
#[cfg(feature = "conformance")]
pub mod conformance;
mod connect;
mod context;
pub mod driver;
mod error;
mod headers;
mod message;
pub mod names;
#[cfg(feature = "otlp")]
pub mod otlp;
mod runtime;
mod sync;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "verify")]
pub mod verify;

#[path = "../adapters/mod.rs"]
pub mod adapters;

pub use broker::{Broker, Deliveries, Delivery, Processed, Settlement, Traced, TracedBroker};
pub use connect::{SCHEMES, connect};
pub use context::current::{TraceIds, in_current, in_current_fn, trace_ids};
pub use context::dialect::Dialect;
pub use context::propagation::{Hop, TracePolicy, TrustBoundary};
pub use context::{carrier, dialect, propagation, w3c};
#[doc(inline)]
pub use driver::capability;
#[doc(inline)]
pub use driver::capability::Capabilities;
#[doc(inline)]
pub use driver::{BrokerUrl, Secret, SecretSource, Tls, Topology};
pub use error::{BoxError, Error, ErrorKind, PublishOutcome, Result};
pub use headers::Headers;
pub use message::{Guarantee, HandlerError, Message, Receipt, Received, Start, Subscription, Topic, Verdict, codec};
pub use runtime::consume::{Consume, Report, Retry};
pub use runtime::job::{Job, JobStyle, TraceReference};
pub use runtime::{Health, TracedBrokerExt, shutdown_signal};
pub use runtime::{bridge, consume, job, redrive, request};

pub use bridge::{Bridge, Bridged};

/// The code of the README and of the guides is tested.
#[cfg(doctest)]
mod pages {
    macro_rules! page {
        ($name:ident, $path:literal) => {
            #[doc = include_str!(concat!("../", $path))]
            struct $name;
        };
    }
    page!(Readme, "README.md");
    page!(Consume, "docs/consume.md");
    page!(Guarantees, "docs/guarantees.md");
    page!(HowATraceCrossesAQueue, "docs/how-a-trace-crosses-a-queue.md");
    #[cfg(feature = "full")]
    page!(Migration, "docs/migration.md");
    #[cfg(all(feature = "full", feature = "otlp"))]
    page!(Operations, "docs/operations.md");
    #[cfg(feature = "testing")]
    page!(Testing, "docs/testing.md");
}

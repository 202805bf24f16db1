//! The conformance kit: what every adapter must do alike, stated as cases and run against a real broker.
//!
//! For authors of adapters, of this library's and of others. Implement [`Harness`], which says how to connect, and run every
//! case as a test of its own:
//!
//! ```toml
//! [dev-dependencies]
//! traced-broker = { version = "0.1", features = ["conformance"] }
//!
//! [[test]]
//! name = "conformance"
//! harness = false
//! ```
//!
//! with [`main`] as the `main` of `tests/conformance.rs`; its documentation has an example, and `docs/write-an-adapter.md` of the
//! source repository goes through a whole adapter.
//!
//! A case is [data](Case): an area, a name, what it requires, and which [capabilities](Need) it needs. A broker without one of
//! them does not escape the case: it must then refuse what the case does with
//! [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), at the call and before anything is lost, and the outcome is
//! [`Outcome::Unsupported`]. Nothing is ever skipped.
//!
//! Whatever a case is about, every span and metric that was exported while it ran must be as OpenTelemetry's messaging conventions and
//! this library's registry say. An adapter that sets attributes of its own [names them](Harness::own_attributes).
//!
//! Cases reach the adapter as programs do, through [`Traced`](crate::Traced), and where they are about the contract of
//! [`Driver`](crate::driver::Driver) itself, directly. Each has topics and groups of its own, so that any number of them can
//! run at a time on one broker, and leaves them behind.

mod breaks;
mod case;
mod cases;
mod conventions;
mod counted;
mod exported;
mod failure;
mod foreign;
mod harness;
mod journal;
mod measurements;
mod need;
mod propagators;
mod recorder;
mod run;
mod spans;
mod suite;
mod vectors;
mod watched;
mod world;

pub use breaks::{Break, Keeper, breaks};
pub use case::{Area, Case, Need};
pub use cases::cases;
pub use failure::Failure;
pub use harness::{Harness, Mortal};
pub use run::{Outcome, run};
pub use spans::Spans;
pub use suite::{RESULTS, ROUNDS, main};

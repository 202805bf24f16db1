//! The conformance kit: the requirements on every adapter, stated as cases and run against a real
//! broker.
//!
//! For authors of adapters, inside and outside this library. Implement [`Harness`], which connects
//! to the broker, and run every case as a separate test:
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
//! with [`main`] as the `main` of `tests/conformance.rs`; see its documentation for an example.
//! `docs/write-an-adapter.md` in the source repository walks through a whole adapter.
//!
//! A case is [data](Case): an area, a name, a requirement, and the [capabilities](Need) it needs. A
//! broker that lacks one of them is still checked: it must refuse the operation with
//! [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), at the call and before anything is
//! lost. The outcome is then [`Outcome::Unsupported`]. So is that of a case that needs an optional
//! part of the harness that is not there. No case is ever skipped.
//!
//! In every case, all spans and metrics exported while it ran must conform to OpenTelemetry's
//! messaging conventions and to this library's registry. An adapter that sets additional attributes
//! [declares them](Harness::own_attributes).
//!
//! Cases use the adapter as applications do, through [`Traced`](crate::Traced), or directly if they
//! are about the contract of [`Driver`](crate::driver::Driver) itself. Each case has its own topics
//! and groups, so any number of cases can run at a time on one broker. Cases do not delete their
//! topics and groups.

mod breaks;
mod case;
mod case_context;
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
mod process;
mod propagators;
mod recorder;
mod requirement;
mod run;
mod spans;
mod suite;
mod vectors;
mod watched;

pub use breaks::{Break, Responsible, breaks};
pub use case::{Area, Case};
pub use cases::cases;
pub use failure::Failure;
pub use harness::{Harness, Killable};
pub use requirement::Need;
pub use run::{Outcome, run};
pub use spans::Spans;
pub use suite::{RESULTS, ROUNDS, main};

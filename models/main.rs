//! Runs models: small programs on the concurrent parts of the library, under many orders of their
//! steps.
//!
//! The modules below are the files of the library. Only `sync` is another one, in which each step
//! of a lock, an atomic or a task is a point where the checker may go on with any other task.
#![allow(dead_code, unused_imports, reason = "only a part of the library is compiled here")]

use std::process::ExitCode;

mod adapters;
mod broker;
mod checker;
#[path = "../src/context/mod.rs"]
mod context;
#[path = "../src/driver/mod.rs"]
mod driver;
#[path = "../src/error.rs"]
mod error;
#[path = "../src/headers.rs"]
mod headers;
#[path = "../src/message/mod.rs"]
mod message;
#[path = "../src/names.rs"]
mod names;
mod sync;

pub use error::{Error, ErrorKind, PublishOutcome, Result};
pub use headers::Headers;
pub use message::{Message, Receipt, Received, Subscription, Topic};

fn main() -> ExitCode {
    let models = [adapters::kafka::models::MODELS, adapters::memory_models::MODELS, broker::models::MODELS];
    checker::run(&models.concat())
}

//! Reading, checking and drawing exported spans, from OTLP/JSON text to the picture.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

#[path = "verify/answers.rs"]
mod answers;
#[path = "verify/anything.rs"]
mod anything;
#[path = "verify/build.rs"]
mod build;
#[path = "verify/checking.rs"]
mod checking;
#[path = "verify/drawing.rs"]
mod drawing;
#[path = "verify/hops.rs"]
mod hops;
#[path = "verify/library.rs"]
mod library;
#[path = "verify/markup.rs"]
mod markup;
#[path = "verify/paging.rs"]
mod paging;
#[path = "verify/picturing.rs"]
mod picturing;
#[path = "verify/reading.rs"]
mod reading;
#[path = "verify/scenes.rs"]
mod scenes;
#[path = "verify/shape.rs"]
mod shape;

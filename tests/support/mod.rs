//! Real servers for the adapters' tests.
//!
//! [`Server::start`] runs a server that belongs to one test, which may kill, pause and restart it;
//! [`shared`] returns the address of a server that all tests of a process use, or of a
//! user-supplied one. The scripts in `tests/testbed` do the work.
#![allow(dead_code, unused_imports, reason = "every test target uses its own part")]

pub(crate) mod certificates;
mod cluster;
mod disk;
mod jaeger;
mod kind;
pub(crate) mod orders;
mod place;
pub(crate) mod program;
pub(crate) mod readme;
mod server;

use std::sync::OnceLock;

pub(crate) use cluster::{Cluster, Ports};
pub(crate) use disk::Disk;
pub(crate) use jaeger::Jaeger;
pub(crate) use kind::Kind;
pub(crate) use server::{Server, send_signal};

/// Returns the address of the broker of this kind that the tests of this process share.
///
/// It is taken from the environment ([`Kind::variable`]), or else a server is started at the first
/// call. That server ends with the process: statics are not dropped, but the server stops when the
/// process no longer holds its standard input.
///
/// # Panics
/// If the server cannot be started; every later call then panics at once with the same message.
pub(crate) fn shared(kind: Kind) -> &'static str {
    const COUNT: usize = Kind::BROKERS.len() + Kind::GENERATIONS.len();
    static SHARED: [Shared; COUNT] = [const { Shared::new() }; COUNT];
    let index = Kind::BROKERS.iter().chain(&Kind::GENERATIONS).position(|broker| *broker == kind);
    let cell = &SHARED[index.unwrap_or_else(|| panic!("{kind:?} is no broker"))];
    match cell.get_or_init(|| Address::find(kind)) {
        Address::Given(url) | Address::Started(url, _) => url,
        Address::Failed(why) => panic!("{why}"),
    }
}

type Shared = OnceLock<Address>;

/// The address of a shared server, and the value that keeps it running.
enum Address {
    Given(String),
    Started(String, Server),
    Failed(String),
}

impl Address {
    fn find(kind: Kind) -> Self {
        if let Some(url) = kind.given() {
            return Self::Given(url);
        }
        match Server::try_start(kind) {
            Ok(server) => Self::Started(server.url(), server),
            Err(why) => Self::Failed(why),
        }
    }
}

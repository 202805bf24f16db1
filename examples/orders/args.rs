//! The command line.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use axum::body::Bytes;
use clap::{Parser, ValueEnum};
use reqwest::Url;

use crate::cut::Cut;

/// The orders to post unless `--input` names others.
const ORDERS: &[u8] = include_bytes!("orders.jsonl");

/// The port of the API with `--serve`, fixed so that a command can be copied.
const SERVE_PORT: u16 = 8080;

/// An order system over any broker, which checks its traces when it is done.
#[derive(Debug, Parser)]
#[command(
    name = "orders",
    after_help = "Exit status: 0 all is well · 1 a trace is broken or an order unaccounted for · 2 could not run"
)]
pub(crate) struct Args {
    /// The broker; except for memory, each needs its cargo feature: kafka, amqp, nats, redis
    #[arg(long, value_name = "URL", default_value = "memory://orders")]
    pub(crate) broker: String,

    /// Keep the API up until Ctrl-C; posts orders only if --input is given
    #[arg(long)]
    serve: bool,

    /// The address that the API listens on; 0.0.0.0 in a container
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    listen: IpAddr,

    /// The API's port [default: 8080 with --serve, else a free one]
    #[arg(long)]
    port: Option<u16>,

    /// Post these orders, one JSON document per line [default: the 300 that come with the example]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// Run only this part, until Ctrl-C; can be repeated [default: all, in one process]
    #[arg(long, value_enum, value_name = "ROLE")]
    pub(crate) role: Vec<Role>,

    /// The job table, a SQLite file that the roles api and reconcile share [default: in memory]
    #[arg(long, value_name = "FILE")]
    pub(crate) jobs: Option<PathBuf>,

    /// Write every exported span as OTLP/JSON, one export request per line
    #[arg(long, value_name = "FILE")]
    pub(crate) spans: Option<PathBuf>,

    /// Also send spans and metrics to a Collector over HTTP, such as http://localhost:4318
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) otlp: Option<Url>,

    /// Break traces on purpose
    #[arg(long, value_enum, hide = true)]
    pub(crate) cut: Option<Cut>,
}

/// A part of the system that can be a separate process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// The order API
    Api,
    /// The fulfillment worker
    Worker,
    /// The notification service
    Notify,
    /// The dead-letter desk and the daily reconciliation
    Reconcile,
}

impl Args {
    /// Returns `true` if this process runs the service.
    pub(crate) fn runs(&self, role: Role) -> bool {
        self.role.is_empty() || self.role.contains(&role)
    }

    /// Returns `true` if this process runs all services, so that it knows when an order is done.
    pub(crate) fn is_whole(&self) -> bool {
        Role::value_variants().iter().all(|role| self.runs(*role))
    }

    /// Returns `true` if the process runs until it is told to end.
    pub(crate) fn serves(&self) -> bool {
        self.serve || !self.role.is_empty()
    }

    /// Returns the address to listen on; port 0 takes a free one.
    pub(crate) fn address(&self) -> SocketAddr {
        let port = self.port.unwrap_or(if self.serves() { SERVE_PORT } else { 0 });
        (self.listen, port).into()
    }

    /// Checks that the parts in several processes can work together.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_whole() {
            return Ok(());
        }
        let in_memory = self.broker.starts_with("memory:");
        ensure!(!in_memory, "--role: processes cannot share memory; --broker names a server");
        ensure!(self.input.is_none(), "--input: only the whole system posts orders; send them to the API");
        let apart = self.runs(Role::Reconcile) && !self.runs(Role::Api);
        ensure!(!apart || self.jobs.is_some(), "--role reconcile: --jobs names the job table, the same as the API's");
        Ok(())
    }

    /// Reads the lines to post, with their numbers. The API decides if a line is a valid order.
    pub(crate) fn orders(&self) -> Result<Vec<(usize, Bytes)>> {
        let text = match &self.input {
            Some(path) => Bytes::from(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?),
            None if self.serves() => return Ok(Vec::new()),
            None => Bytes::from_static(ORDERS),
        };
        let lines = text.split(|byte| *byte == b'\n').map(|line| text.slice_ref(line.trim_ascii()));
        let orders: Vec<_> = (1..).zip(lines).filter(|(_, line)| !line.is_empty()).collect();
        ensure!(!orders.is_empty(), "there is no order in {}", self.input.clone().unwrap_or_default().display());
        Ok(orders)
    }
}

//! What can be asked for on the command line.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use axum::body::Bytes;
use clap::Parser;

use crate::cut::Cut;
use crate::role::{Role, Roles};
use crate::shop::Plan;

/// The orders that are posted unless others are given.
const ORDERS: &[u8] = include_bytes!("orders.jsonl");

/// Where the API listens with `--serve`, for there to be one line to copy.
const SERVE_PORT: u16 = 8080;

/// An order system over any broker, whose traces are checked when it is done.
#[derive(Debug, Parser)]
#[command(
    name = "orders",
    after_help = "Exit status: 0 all is well · 1 a trace is broken or an order unaccounted for · 2 could not run"
)]
pub(crate) struct Args {
    /// The broker; others than memory need their cargo feature: kafka, amqp, nats, redis
    #[arg(long, value_name = "URL", default_value = "memory://orders")]
    broker: String,

    /// Keep the API up until Ctrl-C; posts nothing by itself unless --input is given
    #[arg(long)]
    serve: bool,

    /// The address that the API listens on; 0.0.0.0 in a container
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    listen: IpAddr,

    /// The API's port [default: 8080 with --serve, else a free one]
    #[arg(long)]
    port: Option<u16>,

    /// Post these orders, one JSON document a line [default: the 300 that come with the example]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// Run only this part of the system, until Ctrl-C; may be given several times [default: all, in one process]
    #[arg(long, value_enum, value_name = "ROLE")]
    role: Vec<Role>,

    /// The job table, a SQLite file that the roles api and reconcile share [default: in memory]
    #[arg(long, value_name = "FILE")]
    jobs: Option<PathBuf>,

    /// Write every exported span as OTLP/JSON, one export request a line
    #[arg(long, value_name = "FILE")]
    pub(crate) spans: Option<PathBuf>,

    /// Also send the spans, and measurements, to an OpenTelemetry Collector over HTTP, such as http://localhost:4318
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) otlp: Option<String>,

    /// Break traces on purpose
    #[arg(long, value_enum, hide = true)]
    pub(crate) cut: Option<Cut>,
}

impl Args {
    /// The port to listen on; 0 takes a free one.
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(if self.serves() { SERVE_PORT } else { 0 })
    }

    /// The parts to run.
    ///
    /// # Errors
    /// For parts that could not work together.
    pub(crate) fn roles(&self) -> Result<Roles> {
        let roles = Roles::new(&self.role);
        if !roles.are_all() {
            ensure!(
                !self.broker.starts_with("memory:"),
                "--role: processes cannot share memory; --broker names a server"
            );
            ensure!(self.input.is_none(), "--input: only the whole system posts orders; send them to the API");
        }
        let apart = roles.has(Role::Reconcile) && !roles.has(Role::Api);
        ensure!(!apart || self.jobs.is_some(), "--role reconcile: --jobs names the job table, the same as the API's");
        Ok(roles)
    }

    /// What to run.
    pub(crate) fn plan(&self, roles: Roles) -> Plan {
        let (broker, jobs) = (self.broker.clone(), self.jobs.clone());
        Plan { broker, roles, listen: (self.listen, self.port()).into(), jobs, cut: self.cut }
    }

    /// Whether it is to run until it is told to end.
    pub(crate) fn serves(&self) -> bool {
        self.serve || !self.role.is_empty()
    }

    /// The lines to post, with their numbers in the file. Whether a line is an order is for the API to say.
    pub(crate) fn orders(&self) -> Result<Vec<(usize, Bytes)>> {
        let text = match &self.input {
            Some(path) => Bytes::from(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?),
            None if self.serves() => return Ok(Vec::new()),
            None => Bytes::from_static(ORDERS),
        };
        let lines: Vec<_> = text
            .split(|byte| *byte == b'\n')
            .enumerate()
            .map(|(index, line)| (index + 1, text.slice_ref(line.trim_ascii())))
            .filter(|(_, line)| !line.is_empty())
            .collect();
        ensure!(!lines.is_empty(), "there is no order in {}", self.input.clone().unwrap_or_default().display());
        Ok(lines)
    }
}

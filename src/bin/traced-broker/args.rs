//! The command line.
//!
//! URLs and headers are taken as they come and are parsed later: they may hold secrets, and clap repeats a value that it
//! does not like. For the same reason none of these types can be printed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::bridge::{self, Bridge};
use crate::consume::{self, Consume};
use crate::doctor::{self, Doctor};
use crate::duration;
use crate::probe::{self, Probe};
use crate::publish::{self, Publish};
use crate::redrive::{self, Redrive};

const VERIFY_EXAMPLES: &str = "\
Examples:
  # Send an order, and follow it through the queue as Jaeger shows it
  traced-broker verify --request 'POST http://localhost:8080/orders' --data @order.json \\
      --jaeger http://localhost:16686 --expect 'process orders' --expect service=notification-service

  # Check a trace that Tempo has; of a tenant
  traced-broker verify --trace-id 5b8efff798038103d269b633813fc60c \\
      --tempo http://localhost:3200 --backend-header 'X-Scope-OrgID: shop'

  # In a pipeline: expectations from a file, a report for the build server
  traced-broker verify --request 'POST http://shop.test/orders' --data @order.json --tempo http://tempo.test:3200 \\
      --expectations trace.json --max-queue-latency 2s --junit verify.xml --html trace.html

A file of expectations:
  {
    \"expect\": [
      { \"span\": \"process orders\", \"service\": \"fulfillment-worker\" },
      { \"service\": \"notification-service\", \"kind\": \"consumer\", \"count\": 2 }
    ],
    \"max_queue_latency\": \"2s\"
  }

Exit codes:
  0  the trace is whole
  1  it is broken, misses what was expected, or a message waited too long
  2  it could not be checked";

#[derive(Parser)]
#[command(
    name = "traced-broker",
    version,
    about = "Checks from outside whether traces stay whole at the queue, and moves messages without breaking them"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Check one trace in Tempo or Jaeger, draw it, and say where it broke
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(Box<Verify>),
    /// Publish a message and see whether its trace comes out of the topic, and how long that takes
    #[command(after_help = probe::EXAMPLES)]
    Probe(Probe),
    /// Look at the messages of a topic and say who writes no trace context, or a wrong one
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(Doctor),
    /// Publish messages, each with a trace
    #[command(after_help = publish::EXAMPLES)]
    Publish(Publish),
    /// Show the messages of a topic as they come, with headers and trace ids
    #[command(after_help = consume::EXAMPLES)]
    Consume(Consume),
    /// Copy a topic to another broker, with its traces
    #[command(after_help = bridge::EXAMPLES)]
    Bridge(Bridge),
    /// Send dead letters back to where they came from
    #[command(after_help = redrive::EXAMPLES)]
    Redrive(Redrive),
    /// Say what changes for a program that goes from one broker to another
    #[command(after_help = "Example:\n  traced-broker compare kafka://localhost:9092 nats://localhost:4222")]
    Compare(Compare),
    /// Print the completions of a shell
    #[command(
        after_help = "Example:\n  traced-broker completions bash > ~/.local/share/bash-completion/completions/traced-broker"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Args)]
#[command(
    group(ArgGroup::new("what").args(["request", "trace_id"]).required(true)),
    group(ArgGroup::new("where").args(["tempo", "jaeger"]).required(true))
)]
pub(crate) struct Verify {
    /// Send this request and check its trace, which the answer names in `x-trace-id`, `traceresponse` or `traceparent`
    #[arg(long, value_name = "METHOD URL")]
    pub(crate) request: Option<String>,
    /// The body of the request, or @FILE; JSON unless a header says otherwise
    #[arg(long, value_name = "TEXT|@FILE", requires = "request")]
    pub(crate) data: Option<String>,
    /// A header of the request; never shown
    #[arg(long, value_name = "NAME: VALUE", requires = "request")]
    pub(crate) header: Vec<String>,
    /// Check this trace: 32 hex digits
    #[arg(long, value_name = "ID")]
    pub(crate) trace_id: Option<String>,
    /// Ask the Tempo at this URL, as http://localhost:3200
    #[arg(long, value_name = "URL")]
    pub(crate) tempo: Option<String>,
    /// Ask the Jaeger at this URL, as http://localhost:16686
    #[arg(long, value_name = "URL")]
    pub(crate) jaeger: Option<String>,
    /// A header for Tempo or Jaeger; never shown
    #[arg(long, value_name = "NAME: VALUE")]
    pub(crate) backend_header: Vec<String>,
    /// A span the trace must have: its name, or span=NAME, service=NAME, kind=KIND
    #[arg(long, value_name = "SPAN|KEY=VALUE")]
    pub(crate) expect: Vec<String>,
    /// A JSON file of expectations, as below
    #[arg(long, value_name = "FILE")]
    pub(crate) expectations: Option<PathBuf>,
    /// How long to wait for the trace
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    pub(crate) deadline: Duration,
    /// How long no span may have come for the trace to be taken as complete
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    pub(crate) settle: Duration,
    /// The longest that a message may wait in a queue before it is first delivered
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) max_queue_latency: Option<Duration>,
    /// By how much the clocks of two services may differ
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    pub(crate) max_clock_skew: Duration,
    /// Print the result as JSON instead of the waterfall
    #[arg(long)]
    pub(crate) json: bool,
    /// Also draw the trace as an SVG document
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Also make a page of the trace for the browser: one file, to search, fold and zoom in
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Also write the result as a JUnit report
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Compare {
    /// The broker that is left
    pub(crate) from: String,
    /// The broker that is gone to
    pub(crate) to: String,
}

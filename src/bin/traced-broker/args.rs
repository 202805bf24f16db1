//! The command line.
//!
//! URLs and headers are parsed after clap, because they may hold secrets and clap repeats invalid
//! values. For the same reason none of these types is `Debug`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::bridge::{self, Bridge};
use crate::consume::{self, Consume};
use crate::doctor::{self, Doctor};
use crate::probe::{self, Probe};
use crate::publish::{self, Publish};
use crate::redrive::{self, Redrive};
use crate::time;

const VERIFY_EXAMPLES: &str = "\
Examples:
  # Send an order and check its trace in Jaeger
  traced-broker verify --request 'POST http://localhost:8080/orders' --data @order.json \\
      --jaeger http://localhost:16686 --expect 'process orders' --expect service=notification-service

  # Check a trace of one tenant in Tempo
  traced-broker verify --trace-id 5b8efff798038103d269b633813fc60c \\
      --tempo http://localhost:3200 --backend-header 'X-Scope-OrgID: shop'

  # In a CI pipeline: expectations from a file, a report for the build server
  traced-broker verify --request 'POST http://shop.test/orders' --data @order.json --tempo http://tempo.test:3200 \\
      --expectations trace.json --max-queue-latency 2s --junit verify.xml --html trace.html

A file for --expectations:
  {
    \"expect\": [
      { \"span\": \"process orders\", \"service\": \"fulfillment-worker\" },
      { \"service\": \"notification-service\", \"kind\": \"consumer\", \"count\": 2 }
    ],
    \"max_queue_latency\": \"2s\"
  }

Exit codes:
  0  the trace is whole
  1  the trace is broken, lacks an expected span, or a message waited too long
  2  the trace could not be checked";

#[derive(Parser)]
#[command(
    name = "traced-broker",
    version,
    about = "Checks that traces stay whole across message queues, and moves messages without breaking their traces"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Check one trace in Tempo or Jaeger, draw it, and show where it broke
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(Box<Verify>),
    /// Publish messages to a topic and check that their trace context arrives, and how fast
    #[command(after_help = probe::EXAMPLES)]
    Probe(Probe),
    /// Inspect the messages of a topic and list producers without a valid trace context
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(Doctor),
    /// Publish messages, each with a trace context
    #[command(after_help = publish::EXAMPLES)]
    Publish(Publish),
    /// Show the messages of a topic as they arrive, with headers and trace ids
    #[command(after_help = consume::EXAMPLES)]
    Consume(Consume),
    /// Copy a topic to another broker and keep its traces
    #[command(after_help = bridge::EXAMPLES)]
    Bridge(Bridge),
    /// Send dead letters back to the topics that they came from
    #[command(after_help = redrive::EXAMPLES)]
    Redrive(Redrive),
    /// Show what changes for a program that moves from one broker to another
    #[command(after_help = "Example:\n  traced-broker compare kafka://localhost:9092 nats://localhost:4222")]
    Compare(Compare),
    /// Print a completion script for a shell
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
    /// Send this request and check its trace; the response names it in `x-trace-id`,
    /// `traceresponse` or `traceparent`
    #[arg(long, value_name = "METHOD URL")]
    pub(crate) request: Option<String>,
    /// The body of the request, or @FILE; sent as JSON unless a header sets another content type
    #[arg(long, value_name = "TEXT|@FILE", requires = "request")]
    pub(crate) data: Option<String>,
    /// A header of the request; its value is never shown
    #[arg(long, value_name = "NAME: VALUE", requires = "request")]
    pub(crate) header: Vec<String>,
    /// Check this trace: 32 hex digits
    #[arg(long, value_name = "ID")]
    pub(crate) trace_id: Option<String>,
    /// The URL of Tempo, such as http://localhost:3200
    #[arg(long, value_name = "URL")]
    pub(crate) tempo: Option<String>,
    /// The URL of Jaeger, such as http://localhost:16686
    #[arg(long, value_name = "URL")]
    pub(crate) jaeger: Option<String>,
    /// A header for Tempo or Jaeger; its value is never shown
    #[arg(long, value_name = "NAME: VALUE")]
    pub(crate) backend_header: Vec<String>,
    /// A span that the trace must contain: its name, or span=NAME, service=NAME or kind=KIND
    #[arg(long, value_name = "SPAN|KEY=VALUE")]
    pub(crate) expect: Vec<String>,
    /// A JSON file of expectations, in the format below
    #[arg(long, value_name = "FILE")]
    pub(crate) expectations: Option<PathBuf>,
    /// Maximum time to wait for the trace
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = time::duration)]
    pub(crate) deadline: Duration,
    /// Time without new spans after which the trace counts as complete
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = time::duration)]
    pub(crate) settle: Duration,
    /// Maximum time that a message may wait in a queue before its first delivery
    #[arg(long, value_name = "DURATION", value_parser = time::duration)]
    pub(crate) max_queue_latency: Option<Duration>,
    /// Maximum difference between the clocks of two services
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = time::duration)]
    pub(crate) max_clock_skew: Duration,
    /// Print the result as JSON instead of the waterfall
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write a picture of the trace as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Also write the trace as one HTML file that can be searched, folded and zoomed in a browser
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Also write the result as a JUnit report
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Compare {
    /// The URL of the broker to move from
    pub(crate) from: String,
    /// The URL of the broker to move to
    pub(crate) to: String,
}

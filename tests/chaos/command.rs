//! The command line, and the run of all chosen cases.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgGroup, Parser, ValueEnum};
use futures_util::StreamExt as _;

use crate::case::{Case, Load, Outcome};
use crate::known::KNOWN;
use crate::progress::Progress;
use crate::recorder::Recorder;
use crate::scenario::{Broker, Length, Scenario};
use crate::table::{is_as_expected, judgement, table};
use crate::worker;

/// Findings of one run that are printed; its history has all of them.
const PRINTED: usize = 5;

/// Real servers, real clients and real failures: publishes and consumes while faults happen, and
/// checks that no message and no trace is lost, doubled or mixed up.
#[derive(Debug, Parser)]
#[command(name = "chaos", group = ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct Command {
    /// Broker to run on; may be repeated. All brokers by default
    #[arg(long, group = "what")]
    broker: Vec<Broker>,
    /// Scenario to run; may be repeated. All scenarios by default
    #[arg(long, group = "what")]
    scenario: Vec<Scenario>,
    /// Run every scenario on every broker
    #[arg(long, group = "what")]
    all: bool,
    /// Run a handful of scenarios for a few seconds each
    #[arg(long, group = "what")]
    short: bool,
    /// List the scenarios, brokers and known breaks
    #[arg(long, group = "what")]
    list: bool,
    /// Seed of messages and faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run for minutes, with faults longer than time-outs
    #[arg(long, conflicts_with = "short")]
    long: bool,
    /// Number of runs of each case, each with the next seed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Messages per second; by default 120 in the short form, 200, and 300 in the long one
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: Option<u32>,
    /// Go on with the faults until a run has published this many messages
    #[arg(long, default_value_t = 0)]
    messages: usize,
    /// Number of cases to run at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    jobs: u8,
    /// Directory for the histories of broken runs
    #[arg(long, default_value_os_t = default_directory())]
    keep: PathBuf,
    /// Option of the clients' address, for example group_protocol=consumer; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    option: Vec<String>,
    #[arg(long, hide = true, group = "what")]
    worker: Option<String>,
}

fn default_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("chaos")
}

/// The scenarios of the short form.
const SHORT: [Scenario; 6] =
    [Scenario::Calm, Scenario::Kill, Scenario::Cuts, Scenario::Hole, Scenario::Worker, Scenario::Cluster];

impl Command {
    /// Runs it and returns the exit code.
    pub(crate) async fn run(self) -> ExitCode {
        if let Some(job) = &self.worker {
            return worker::work(job).await;
        }
        if self.list {
            list();
            return ExitCode::SUCCESS;
        }
        let cases = self.cases();
        if cases.is_empty() {
            eprintln!("error: no chosen scenario can happen on a chosen broker; see --list");
            return ExitCode::from(2);
        }
        let progress = Arc::new(Progress::new(cases.len()));
        let runs = futures_util::stream::iter(cases).map(|case| {
            let progress = Arc::clone(&progress);
            async move { run(case, &progress).await }
        });
        let outcomes: Vec<Outcome> = runs.buffered(self.jobs.into()).collect().await;
        self.report(&outcomes)
    }

    fn cases(&self) -> Vec<Case> {
        let length = match (self.short, self.long) {
            (true, _) => Length::Short,
            (_, true) => Length::Long,
            _ => Length::Normal,
        };
        let is_alone = self.jobs == 1;
        // As long as the process: there is one command in it.
        let options: &'static str = self.option.join("&").leak();
        let all: &[Scenario] = if self.short { &SHORT } else { Scenario::value_variants() };
        let scenarios = if self.scenario.is_empty() { all } else { &self.scenario };
        let brokers = if self.broker.is_empty() { Broker::value_variants() } else { &self.broker };
        let pairs = scenarios.iter().flat_map(|scenario| brokers.iter().map(move |broker| (*scenario, *broker)));
        let possible = pairs.filter(|(scenario, broker)| scenario.is_for(*broker));
        let load = Load { rate: self.rate, messages: self.messages };
        let seeds = (0..self.runs).map(|run| self.seed + run);
        let case = |scenario, broker, seed| Case { scenario, broker, seed, length, load, is_alone, options };
        let runs = |(scenario, broker)| seeds.clone().map(move |seed| case(scenario, broker, seed));
        possible.flat_map(runs).collect()
    }

    /// Prints the findings and the table.
    fn report(&self, outcomes: &[Outcome]) -> ExitCode {
        for outcome in outcomes.iter().filter(|outcome| !is_as_expected(outcome) || !outcome.findings.is_empty()) {
            self.explain(outcome);
        }
        println!("\n{}", table(outcomes));
        let failed = outcomes.iter().filter(|outcome| !is_as_expected(outcome)).count();
        println!("{} runs, {failed} not as expected", outcomes.len());
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn explain(&self, outcome: &Outcome) {
        let Case { scenario, broker, seed, .. } = outcome.case;
        println!("\n{scenario} {broker}, seed {seed}:");
        if let Some(failure) = &outcome.failure {
            println!("  the run could not be made: {failure}");
        }
        let judgement = judgement(outcome);
        for known in &judgement.missing {
            println!("  {} no longer shows ({}): remove it from tests/chaos/known.rs", known.finding, known.why);
        }
        for (known, count) in &judgement.known {
            println!("  {} ({} {count} times): {}", known.finding, known.invariant, known.why);
        }
        for finding in judgement.unexpected.iter().take(PRINTED) {
            println!("  {}: {}", finding.invariant, finding.text);
        }
        if judgement.unexpected.len() > PRINTED {
            println!("  and {} more", judgement.unexpected.len() - PRINTED);
        }
        match self.keep_history(outcome) {
            Ok(directory) => println!("  history and findings: {}", directory.display()),
            Err(error) => println!("  the history cannot be kept: {error}"),
        }
    }

    fn keep_history(&self, outcome: &Outcome) -> std::io::Result<PathBuf> {
        let Case { scenario, broker, seed, .. } = outcome.case;
        let directory = self.keep.join(format!("{scenario}-{broker}-{seed}-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let lines = outcome.history.iter().map(|record| serde_json::to_string(record).expect("plain data"));
        fs::write(directory.join("history.jsonl"), lines.collect::<Vec<_>>().join("\n"))?;
        let lines = outcome.findings.iter().map(|finding| serde_json::to_string(finding).expect("plain data"));
        fs::write(directory.join("findings.jsonl"), lines.collect::<Vec<_>>().join("\n"))?;
        Ok(directory)
    }
}

async fn run(case: Case, progress: &Progress) -> Outcome {
    let recorder = Recorder::in_memory();
    let shown = progress.begin(&case, &recorder);
    let mut outcome = case.run(recorder).await;
    shown.end(&outcome);
    if outcome.findings.is_empty() {
        outcome.history = Vec::new();
    }
    outcome
}

fn list() {
    println!("scenarios:");
    for scenario in Scenario::value_variants() {
        let brokers = Broker::value_variants().iter().filter(|broker| scenario.is_for(**broker));
        let brokers: Vec<String> = brokers.map(ToString::to_string).collect();
        println!("  {:13} {} ({})", scenario.to_string(), scenario.describe(), brokers.join(", "));
    }
    println!("\nknown breaks:");
    for known in KNOWN {
        let often = if known.is_rare { ", rare" } else { "" };
        let (scenario, broker) = (known.scenario, known.broker);
        println!("  {} {scenario} on {broker}, {}{often}: {}", known.finding, known.invariant, known.why);
    }
}

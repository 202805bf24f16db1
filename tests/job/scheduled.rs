//! The example `scheduled`, killed and restarted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;
use traced_broker::verify::{Kind, Span, SpanRef, Traces, check};

use super::program::{Program, read};
use crate::support::program::example;

fn start(folder: &Path, arguments: &[&str]) -> Program {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| example("scheduled"));
    let all: Vec<&str> = ["--folder", folder.to_str().unwrap()].iter().chain(arguments).copied().collect();
    Program::start(program, &all)
}

fn spans_of(folder: &TempDir) -> Traces {
    read(&folder.path().join("spans.jsonl"))
}

fn named<'a>(traces: &'a Traces, name: &str) -> Vec<&'a Span> {
    traces.iter().flat_map(|trace| trace.spans()).filter(|span| span.name == name).collect()
}

/// Checks that the job is a separate trace with a link to the handling of each request, whichever
/// program handled it.
fn check_job(traces: &Traces, requests: usize) {
    let report = check(traces);
    assert!(report.is_whole(), "{report}");
    let jobs: Vec<&Span> =
        traces.iter().flat_map(|trace| trace.roots()).filter(|root| root.kind == Kind::Internal).collect();
    let jobs: Vec<&&Span> = jobs.iter().filter(|root| root.name.starts_with("job ")).collect();
    let [job] = &*jobs else { panic!("one job: {jobs:#?}") };
    assert_eq!((&*job.name, job.parent), ("job write reports", None));
    let attributes = ["job.name", "job.trigger", "job.type"].map(|key| job.attributes.text(key));
    assert_eq!(attributes, [Some("write reports"), Some("schedule"), Some("report")]);

    let processes = named(traces, "process report-requests");
    let asked: BTreeSet<SpanRef> =
        processes.iter().map(|span| SpanRef { trace_id: span.trace_id, span_id: span.span_id }).collect();
    let linked: BTreeSet<SpanRef> = job.links.iter().map(|link| link.target).collect();
    assert_eq!((asked.len(), job.links.len()), (requests, requests));
    assert_eq!(linked, asked);
    let traces_asking: BTreeSet<_> = asked.iter().map(|span| span.trace_id).collect();
    assert_eq!(traces_asking.len(), requests, "each request is a trace of its own");
    assert!(!traces_asking.contains(&job.trace_id));

    let notes: BTreeSet<&str> =
        job.links.iter().filter_map(|link| link.attributes.text("job.reference.note")).collect();
    let expected: Vec<String> = (0..requests).map(|number| format!("customer-{number}")).collect();
    assert_eq!(notes, expected.iter().map(String::as_str).collect());
    assert!(job.links.iter().all(|link| link.attributes.double("job.reference.age").is_some_and(|age| age >= 0.0)));
    let latest = processes.iter().map(|span| span.end).max().unwrap();
    assert!(job.start > latest, "it ran after all had asked");
}

#[test]
fn requests_and_schedule_survive_being_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start(folder.path(), &["--requests", "5", "--every", "8"]);
    first.wait_for("5 requests are waiting");
    let said = first.kill();
    assert!(!said.contains("writing"), "killed before the run:\n{said}");
    assert_eq!(named(&spans_of(&folder), "job write reports").len(), 0);

    // It is due when the first program scheduled it, not in an hour.
    let said = start(folder.path(), &["--requests", "0", "--every", "3600"]).finish();
    assert!(said.contains("5 requests are waiting") && said.contains("5 reports are written"), "{said}");
    check_job(&spans_of(&folder), 5);

    let mut third = start(folder.path(), &["--requests", "0", "--every", "3600"]);
    third.wait_for("the next run is due in 3");
    let said = third.kill();
    assert!(said.contains("0 requests are waiting"), "done once:\n{said}");
}

#[test]
fn a_job_that_is_killed_half_way_is_done_by_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start(folder.path(), &["--requests", "3", "--every", "0", "--work", "600000"]);
    first.wait_for("writing 3 reports");
    first.kill();

    let said = start(folder.path(), &["--requests", "0", "--every", "3600", "--work", "1"]).finish();
    assert!(said.contains("3 reports are written"), "{said}");
    check_job(&spans_of(&folder), 3);
}

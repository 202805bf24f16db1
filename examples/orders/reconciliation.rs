//! `daily.reconciliation`: a job that checks the books once a day.
//!
//! The first order of a day puts the job into the job table. The job runs long after that request
//! was answered, in another service. So it gets its own trace: a root span **linked** to the span
//! that enqueued it. The table only has to hold one string for this, the reference.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use opentelemetry::trace::{TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::time::sleep;
use traced_broker::{Job, TraceReference};

use crate::ledger::{Books, Ledger};
use crate::shop::Run;
use crate::telemetry::Service;

pub(crate) const SERVICE: &str = "reconciliation-job";
pub(crate) const JOB: &str = "daily.reconciliation";

/// The job table: one row per day, in memory or in a file that the API and the job share.
#[derive(Debug)]
pub(crate) struct JobTable(Mutex<Connection>);

impl JobTable {
    /// Opens the table in this file, or a new one in memory.
    pub(crate) fn open(file: Option<&Path>) -> Result<Self> {
        let open = || {
            let database = file.map_or_else(Connection::open_in_memory, Connection::open)?;
            // Maximum time to wait for another process that is writing.
            database.busy_timeout(Duration::from_secs(5))?;
            database.execute(
                "CREATE TABLE IF NOT EXISTS jobs \
                 (day TEXT PRIMARY KEY, cause TEXT NOT NULL, reference TEXT, done INTEGER NOT NULL DEFAULT 0)",
                [],
            )?;
            Ok::<_, rusqlite::Error>(database)
        };
        let database =
            open().with_context(|| format!("cannot open the job table {}", file.unwrap_or(Path::new("")).display()))?;
        Ok(Self(Mutex::new(database)))
    }

    /// Enqueues the job of today unless it is in the table, within a span of the current trace.
    pub(crate) fn enqueue(&self, tracer: &SdkTracer) -> Result<()> {
        let database = self.0.lock();
        let known = "SELECT EXISTS (SELECT 1 FROM jobs WHERE day = date('now'))";
        if database.query_row(known, [], |row| row.get(0)).context("cannot read the job table")? {
            return Ok(());
        }
        let context = Context::current_with_span(tracer.start(format!("enqueue {JOB}")));
        // A span that is not sampled is not exported, so that a link to it would lead nowhere.
        let reference = TraceReference::of_context(&context).filter(|reference| reference.traceparent().is_sampled());
        let inserted = database.execute(
            "INSERT INTO jobs (day, cause, reference) VALUES (date('now'), 'first-order-of-day', ?1)",
            [reference.map(|reference| reference.to_string())],
        );
        context.span().end();
        inserted.map(|_| ()).context("cannot enqueue the reconciliation")
    }

    /// Does the job that is due, if there is one.
    pub(crate) async fn reconcile(&self, service: &Service, ledger: &Ledger) {
        if let Err(error) = self.try_reconcile(service, &ledger.books()).await {
            ledger.trouble(error);
        }
    }

    async fn try_reconcile(&self, service: &Service, books: &Books) -> rusqlite::Result<()> {
        let due = "SELECT day, cause, reference FROM jobs WHERE done = 0 ORDER BY day LIMIT 1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let due = self.0.lock().query_row(due, [], row).optional()?;
        let Some((day, cause, reference)): Option<(String, String, Option<String>)> = due else { return Ok(()) };

        // A job whose reference cannot be read runs without a link.
        let reference: Option<TraceReference> = reference.and_then(|text| text.parse().ok());
        let job = Job::new(JOB).job_type("reconciliation").trigger(cause).references(reference);
        let job = job.with_tracer_provider(&service.provider);
        // The error is on the span.
        let _recorded = job.run(async { compare(&service.tracer(), books) }).await;
        self.0.lock().execute("UPDATE jobs SET done = 1 WHERE day = ?1", params![day]).map(|_| ())
    }
}

/// Looks into the job table every second until the run stops, in a process that does not see when
/// the day is over.
pub(crate) async fn watch(jobs: Arc<JobTable>, service: Service, run: Run) {
    while run.stop.run_until_cancelled(sleep(Duration::from_secs(1))).await.is_some() {
        jobs.reconcile(&service, &run.ledger).await;
    }
}

/// Compares the books inside the job's span.
fn compare(tracer: &SdkTracer, books: &Books) -> Result<(), String> {
    let open = tracer.in_span("compare books", |_| books.unaccounted().len());
    let context = Context::current();
    for (name, number) in [
        ("reconciliation.accepted", books.count(|account| account.accepted)),
        ("reconciliation.fulfilled", books.count(|account| account.fulfilled)),
        ("reconciliation.dead_lettered", books.count(|account| account.dead_lettered)),
        ("reconciliation.unaccounted", open),
    ] {
        context.span().set_attribute(KeyValue::new(name, number as i64));
    }
    if open == 0 { Ok(()) } else { Err(format!("{open} orders are unaccounted for")) }
}

//! `daily.reconciliation`: goes through the books once a day.
//!
//! The first order of a day puts the job into the job table. It runs long after that request was answered, in another
//! service, so that it gets a trace of its own: a root span **linked** to who enqueued it. All that the table has to
//! hold for this is one string, the reference.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use opentelemetry::trace::{Span as _, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, params};
use traced_broker::{Job, TraceReference};

use crate::books::Books;
use crate::telemetry::tracer;

pub(crate) const SERVICE: &str = "reconciliation-job";
/// The name of the job.
pub(crate) const JOB: &str = "daily.reconciliation";
/// The name of its root span.
pub(crate) const JOB_SPAN: &str = "job daily.reconciliation";

/// How long one process waits for another that is writing.
const BUSY: Duration = Duration::from_secs(5);

/// The job table: one row a day. In memory, or a file that the API and the job share.
#[derive(Debug)]
pub(crate) struct JobTable {
    database: Mutex<Connection>,
    /// The day whose job is known to be there, so that not every order asks.
    enqueued: AtomicI64,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    day: i64,
    trigger: String,
    reference: Option<TraceReference>,
}

impl JobTable {
    /// Opens the table in this file, or a new one in memory.
    pub(crate) fn open(file: Option<&Path>) -> Result<Self> {
        let opened = match file {
            Some(path) => Connection::open(path),
            None => Connection::open_in_memory(),
        };
        let table = "CREATE TABLE IF NOT EXISTS jobs \
                     (day INTEGER PRIMARY KEY, cause TEXT NOT NULL, reference TEXT, done INTEGER NOT NULL DEFAULT 0)";
        let ready = opened.and_then(|database| {
            database.busy_timeout(BUSY)?;
            database.execute(table, [])?;
            Ok(database)
        });
        let shown = || file.map_or_else(|| "in memory".to_owned(), |path| path.display().to_string());
        let database = ready.with_context(|| format!("cannot open the job table {}", shown()))?;
        Ok(Self { database: Mutex::new(database), enqueued: AtomicI64::new(i64::MIN) })
    }

    /// Enqueues today's reconciliation, unless it is there already, within a span of the current trace.
    pub(crate) fn enqueue(&self, tracer: &SdkTracer) -> Result<()> {
        let day = today();
        let is_known = || self.enqueued.load(Ordering::Relaxed) == day;
        if is_known() {
            return Ok(());
        }
        let database = self.database.lock();
        let stored = || database.query_row("SELECT 1 FROM jobs WHERE day = ?1", [day], |_| Ok(())).optional();
        if is_known() || stored()?.is_some() {
            self.enqueued.store(day, Ordering::Relaxed);
            return Ok(());
        }
        let context = Context::current_with_span(tracer.start(format!("enqueue {JOB}")));
        // A span that was not sampled is not exported either: a link to it would lead nowhere.
        let reference = TraceReference::of_context(&context).filter(|reference| reference.traceparent().is_sampled());
        let inserted = database.execute(
            "INSERT OR IGNORE INTO jobs (day, cause, reference) VALUES (?1, ?2, ?3)",
            params![day, "first-order-of-day", reference.map(|reference| reference.to_string())],
        );
        context.span().end();
        inserted.context("cannot enqueue the reconciliation")?;
        self.enqueued.store(day, Ordering::Relaxed);
        Ok(())
    }

    /// The job that is due.
    pub(crate) fn due(&self) -> Result<Option<Row>> {
        let read = |row: &rusqlite::Row<'_>| {
            let reference: Option<String> = row.get(2)?;
            // Of a reference that cannot be read the job has no link, and runs all the same.
            let reference = reference.and_then(|text| text.parse().ok());
            Ok(Row { day: row.get(0)?, trigger: row.get(1)?, reference })
        };
        let due = "SELECT day, cause, reference FROM jobs WHERE done = 0 ORDER BY day LIMIT 1";
        self.database.lock().query_row(due, [], read).optional().context("cannot read the job table")
    }

    /// Notes that the job was done.
    pub(crate) fn done(&self, row: &Row) -> Result<()> {
        let done = self.database.lock().execute("UPDATE jobs SET done = 1 WHERE day = ?1", [row.day]);
        done.map(|_| ()).context("cannot write to the job table")
    }
}

impl Row {
    /// Goes through the books inside a root span of its own.
    pub(crate) async fn reconcile(self, provider: &SdkTracerProvider, books: &Books) -> Self {
        let job = Job::new(JOB).job_type("reconciliation").trigger(self.trigger.clone()).with_tracer_provider(provider);
        let compared = job.references(self.reference.clone()).run(async { compare(&tracer(provider), books) });
        // Who reads the books later is told too.
        let _on_the_span = compared.await;
        self
    }
}

/// Runs inside the job's span; an error is that span's.
fn compare(tracer: &SdkTracer, books: &Books) -> Result<(), String> {
    let mut comparing = tracer.start("compare books");
    let open = books.unaccounted().len();
    comparing.end();
    let context = Context::current();
    for (name, number) in [
        ("reconciliation.accepted", books.tally.accepted),
        ("reconciliation.fulfilled", books.tally.fulfilled),
        ("reconciliation.dead_lettered", books.tally.dead_lettered),
        ("reconciliation.unaccounted", open),
    ] {
        context.span().set_attribute(KeyValue::new(name, i64::try_from(number).unwrap_or(i64::MAX)));
    }
    if open == 0 { Ok(()) } else { Err(format!("{open} orders are unaccounted for")) }
}

/// Days since 1970, in UTC.
fn today() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs() / (24 * 60 * 60)).unwrap_or(i64::MAX)
}

//! A schedule that survives a restart, and whose jobs are linked to the requests for them.
//!
//! Customers request reports by message. The handler puts each request into a database, with a
//! reference to its span. Every few seconds a job writes all requested reports, in its own trace
//! with a link to each request. Requests, references and the time of the next run are in the
//! database, so that a kill of the program loses none of them: start it again with `--requests 0`.
//!
//! ```text
//! cargo run --example scheduled
//! cargo run --example scheduled --features kafka -- --broker kafka://localhost:9092
//! ```
#![expect(clippy::print_stdout, reason = "the output of the program")]

#[path = "support/span_log.rs"]
mod span_log;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use futures_util::StreamExt as _;
use opentelemetry::trace::{TraceContextExt as _, Tracer as _};
use parking_lot::Mutex;
use rusqlite::{Connection, params};
use traced_broker::verify::{Traces, Waterfall, check};
use traced_broker::{
    Broker, Deliveries, Job, Message, Received, Subscription, TraceReference, TracedBroker as _, connect,
    in_current_fn, shutdown_signal, trace_ids,
};

const TOPIC: &str = "report-requests";
const SCHEDULE: &str = "reports";

/// Writes reports on a schedule that survives a restart.
#[derive(Debug, Parser)]
struct Args {
    /// The broker; except for memory, each needs its cargo feature: kafka, amqp, nats, redis
    #[arg(long, value_name = "URL", default_value = "memory://reports")]
    broker: String,

    /// The folder of the database and the exported spans [default: a temporary one]
    #[arg(long)]
    folder: Option<PathBuf>,

    /// The number of reports to request first
    #[arg(long, default_value_t = 3)]
    requests: usize,

    /// Seconds from run to run; a run that the database has earlier is not put off
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    every: u32,

    /// The duration of a run, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100)]
    work: u32,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let every = Duration::from_secs(args.every.into());
    let folder = args.folder.unwrap_or_else(|| std::env::temp_dir().join("traced-broker-scheduled"));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (database, spans) = (folder.join("jobs.db"), folder.join("spans.jsonl"));
    let provider = span_log::install(&spans, "reports");
    let store = Store::open(&database, every)?;
    let broker = connect(&args.broker).await?;
    let deliveries = broker.subscribe(Subscription::new(TOPIC).group("intake")).await?;
    take_requests(&broker, deliveries, &store, args.requests).await?;
    println!("{} requests are waiting", store.waiting()?.len());

    let due = store.due()?.duration_since(SystemTime::now()).unwrap_or_default();
    println!("the next run is due in {:.1} s", due.as_secs_f64());
    tokio::select! {
        () = tokio::time::sleep(due) => run(&store, every, Duration::from_millis(args.work.into())).await?,
        stopped = shutdown_signal() => {
            stopped?;
            println!("stopped; the next start does the waiting requests");
        }
    }
    broker.close().await?;
    provider.shutdown()?;
    show(&span_log::read(&spans)?)
}

/// Requests reports, and puts the requests that arrive into the database.
async fn take_requests(broker: &Broker, mut deliveries: Deliveries, store: &Arc<Store>, count: usize) -> Result<()> {
    let tracer = opentelemetry::global::tracer("reports");
    for number in 0..count {
        let request = opentelemetry::Context::new().with_span(tracer.start("POST /reports"));
        broker.publish(TOPIC, Message::new(format!("customer-{number}")).context(request.clone())).await?;
        request.span().end();
    }
    for _ in 0..count {
        let delivery = deliveries.next().await.context("the broker is gone")??;
        let store = Arc::clone(store);
        let handler = |message: Received| async move {
            let customer = String::from_utf8(message.payload().to_vec())?;
            println!("{customer} asks for a report {}", trace_ids().map(|ids| ids.to_string()).unwrap_or_default());
            // The thread has no current span without `in_current_fn`.
            tokio::task::spawn_blocking(in_current_fn(move || store.enqueue(&customer))).await??;
            Ok(())
        };
        delivery.process(handler).await?;
    }
    Ok(())
}

/// Runs the schedule once: one job for all waiting requests, linked to each of them.
async fn run(store: &Store, every: Duration, work: Duration) -> Result<()> {
    let waiting = store.waiting()?;
    println!("writing {} reports", waiting.len());
    let references = waiting.iter().filter_map(|request| request.reference.clone());
    let write = async {
        // Reports would be written here; messages sent from here belong to the trace of the job.
        tokio::time::sleep(work).await;
        store.done(&waiting, every)
    };
    let job = Job::new("write reports").trigger("schedule").job_type("report").references(references);
    job.run(write).await?;
    println!("{} reports are written", waiting.len());
    Ok(())
}

/// Draws the traces of all runs in the file; fails if a trace is broken.
fn show(traces: &Traces) -> Result<()> {
    let report = check(traces);
    let jobs = traces.iter().filter(|trace| trace.roots().any(|root| root.name.starts_with("job ")));
    for trace in jobs {
        println!("\n{}", Waterfall::new(trace).within(traces).report(&report));
    }
    println!("\n{report}");
    ensure!(report.broken() == 0, "a trace is broken");
    Ok(())
}

/// A request in the database.
struct Request {
    id: i64,
    reference: Option<TraceReference>,
}

/// The database: waiting requests, and the time when they are due.
struct Store(Mutex<Connection>);

impl Store {
    /// Opens the database, and schedules the next run unless one is due earlier.
    fn open(path: &Path, every: Duration) -> Result<Arc<Self>> {
        let connection = Connection::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS request (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, reference TEXT);
             CREATE TABLE IF NOT EXISTS schedule (name TEXT PRIMARY KEY, due_ms INTEGER NOT NULL);",
        )?;
        connection.execute(
            "INSERT INTO schedule VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET due_ms = min(due_ms, excluded.due_ms)",
            params![SCHEDULE, milliseconds(SystemTime::now() + every)?],
        )?;
        Ok(Arc::new(Self(Mutex::new(connection))))
    }

    /// Adds a request, with a reference to the current span.
    fn enqueue(&self, customer: &str) -> Result<()> {
        let reference = TraceReference::current().map(|reference| reference.with_note(customer).to_string());
        let insert = "INSERT INTO request (customer, reference) VALUES (?1, ?2)";
        self.0.lock().execute(insert, params![customer, reference])?;
        Ok(())
    }

    /// Returns the waiting requests. A reference that cannot be read only costs the link.
    fn waiting(&self) -> Result<Vec<Request>> {
        let connection = self.0.lock();
        let mut rows = connection.prepare("SELECT id, reference FROM request ORDER BY id")?;
        let requests = rows.query_map([], |row| {
            let reference: Option<String> = row.get("reference")?;
            Ok(Request { id: row.get("id")?, reference: reference.and_then(|text| text.parse().ok()) })
        })?;
        Ok(requests.collect::<rusqlite::Result<_>>()?)
    }

    /// Returns the time when the next run is due.
    fn due(&self) -> Result<SystemTime> {
        let query = "SELECT due_ms FROM schedule WHERE name = ?1";
        let due: i64 = self.0.lock().query_row(query, [SCHEDULE], |row| row.get(0))?;
        Ok(SystemTime::UNIX_EPOCH + Duration::from_millis(due.try_into()?))
    }

    /// Removes the finished requests and schedules the next run, both or neither. Missed runs are
    /// not repeated one by one.
    fn done(&self, requests: &[Request], every: Duration) -> Result<()> {
        let mut connection = self.0.lock();
        let transaction = connection.transaction()?;
        for request in requests {
            transaction.execute("DELETE FROM request WHERE id = ?1", [request.id])?;
        }
        let next = milliseconds(SystemTime::now() + every)?;
        transaction.execute("UPDATE schedule SET due_ms = ?2 WHERE name = ?1", params![SCHEDULE, next])?;
        Ok(transaction.commit()?)
    }
}

fn milliseconds(time: SystemTime) -> Result<i64> {
    Ok(time.duration_since(SystemTime::UNIX_EPOCH)?.as_millis().try_into()?)
}

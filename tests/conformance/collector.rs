//! A collector on loopback: accepts the requests of real OTLP/HTTP exporters, and stores them as a
//! Collector's file exporter writes them.
#![allow(dead_code, reason = "every test target uses its own part")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use parking_lot::Mutex;
use prost::Message as _;

/// Number of spans that a batch processor sends at a time.
const BATCH: usize = 512;

/// The OTLP/JSON lines of each inbox.
type Files = Arc<Mutex<HashMap<u64, String>>>;

/// A separate inbox at the collector of this process.
#[derive(Debug)]
pub(crate) struct Inbox {
    number: u64,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Returns the endpoint for exporters; for traces they append the usual path themselves.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}/{}", collector().0, self.number)
    }

    /// Exports the spans to this inbox as those of a service, through a new exporter.
    pub(crate) async fn export(&self, spans: Vec<SpanData>, service: &str) {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().expect("an HTTP client");
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(format!("{}/v1/traces", self.endpoint()))
            .build()
            .expect("an exporter");
        exporter.set_resource(&Resource::builder_empty().with_service_name(service.to_owned()).build());
        for batch in spans.chunks(BATCH) {
            exporter.export(batch.to_vec()).await.expect("the collector takes the spans");
        }
    }

    /// Returns the file of everything that has arrived, and begins a new file.
    pub(crate) fn take(&self) -> String {
        collector().1.lock().remove(&self.number).unwrap_or_default()
    }
}

/// Exports the spans through a new exporter to the collector of this process, and returns the file
/// that it wrote.
pub(crate) async fn export(spans: Vec<SpanData>) -> String {
    let inbox = Inbox::new();
    inbox.export(spans, "conformance").await;
    inbox.take()
}

/// Returns the collector of this process. It runs in its own thread because each case has a runtime
/// that ends with it.
fn collector() -> &'static (String, Files) {
    static COLLECTOR: OnceLock<(String, Files)> = OnceLock::new();
    COLLECTOR.get_or_init(|| {
        let files = Files::default();
        let (sender, receiver) = mpsc::channel();
        let kept = Arc::clone(&files);
        thread::spawn(move || serve(kept, &sender));
        (receiver.recv().expect("the collector listens"), files)
    })
}

fn serve(files: Files, address: &mpsc::Sender<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        address.send(listener.local_addr().expect("an address").to_string()).expect("somebody waits");
        let receive = post(receive).layer(DefaultBodyLimit::max(64 << 20));
        let app = axum::Router::new().route("/{number}/v1/traces", receive).with_state(files);
        axum::serve(listener, app).await.expect("it serves");
    });
}

async fn receive(
    State(files): State<Files>,
    Path(number): Path<u64>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(), (StatusCode, String)> {
    let refuse = |why: String| (StatusCode::BAD_REQUEST, why);
    if headers.get("content-type").is_none_or(|kind| kind != "application/x-protobuf") {
        return Err(refuse("not OTLP in protobuf".to_owned()));
    }
    let request = ExportTraceServiceRequest::decode(body).map_err(|error| refuse(error.to_string()))?;
    let line = serde_json::to_string(&request).map_err(|error| refuse(error.to_string()))?;
    let mut files = files.lock();
    let file = files.entry(number).or_default();
    file.push_str(&line);
    file.push('\n');
    Ok(())
}

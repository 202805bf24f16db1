//! A server that looks like a Collector to programs: receives OTLP over HTTP and stores it.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::{HeaderMap, Uri};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

/// Stores the requests until the test ends.
pub(crate) struct Receiver {
    pub(crate) url: String,
    came: Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let came = Arc::<Mutex<Vec<_>>>::default();
        let kept = Arc::clone(&came);
        let router = axum::Router::new().fallback(move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let body = unpacked(&headers, body);
            kept.lock().unwrap().push((uri.path().to_owned(), headers, body));
            async {}
        });
        tokio::spawn(async { axum::serve(listener, router).await });
        Self { url, came }
    }

    pub(crate) fn requests(&self) -> Vec<(String, HeaderMap)> {
        self.came.lock().unwrap().iter().map(|(path, headers, _)| (path.clone(), headers.clone())).collect()
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let resources = self.traces().into_iter().flat_map(|request| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// Returns the names of the received metrics.
    pub(crate) fn metrics(&self) -> Vec<String> {
        let resources = self.measurements().into_iter().flat_map(|request| request.resource_metrics);
        let metrics = resources.flat_map(|resource| resource.scope_metrics).flat_map(|scope| scope.metrics);
        metrics.map(|metric| metric.name).collect()
    }

    /// Returns the resources of both signals.
    pub(crate) fn resources(&self) -> Vec<HashMap<String, String>> {
        let traces = self.traces().into_iter().flat_map(|request| request.resource_spans);
        let metrics = self.measurements().into_iter().flat_map(|request| request.resource_metrics);
        let resources = traces.map(|spans| spans.resource).chain(metrics.map(|metrics| metrics.resource));
        resources.flatten().map(texts).collect()
    }

    fn traces(&self) -> Vec<ExportTraceServiceRequest> {
        let came = self.came.lock().unwrap();
        let traces = came.iter().filter(|(path, ..)| path != "/v1/metrics");
        traces.map(|(.., body)| ExportTraceServiceRequest::decode(body.clone()).unwrap()).collect()
    }

    fn measurements(&self) -> Vec<ExportMetricsServiceRequest> {
        let came = self.came.lock().unwrap();
        let metrics = came.iter().filter(|(path, ..)| path == "/v1/metrics");
        metrics.map(|(.., body)| ExportMetricsServiceRequest::decode(body.clone()).unwrap()).collect()
    }
}

fn unpacked(headers: &HeaderMap, body: Bytes) -> Bytes {
    if headers.get("content-encoding").is_none_or(|encoding| encoding != "gzip") {
        return body;
    }
    let mut unpacked = Vec::new();
    GzDecoder::new(&*body).read_to_end(&mut unpacked).unwrap();
    unpacked.into()
}

fn texts(resource: Resource) -> HashMap<String, String> {
    let pairs = resource.attributes.into_iter().map(|pair| {
        let value = match pair.value.and_then(|value| value.value) {
            Some(Value::StringValue(text)) => text,
            other => format!("{other:?}"),
        };
        (pair.key, value)
    });
    pairs.collect()
}

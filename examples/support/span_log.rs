//! A file of exported spans, for examples that draw them.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use traced_broker::verify::{self, Traces};

/// Appends each span when it ends, one OTLP/JSON request per line, so that a program that is killed
/// leaves the spans that have ended.
#[derive(Debug)]
struct SpanLog {
    path: PathBuf,
    resource: ResourceAttributesWithSchema,
}

/// Installs a global tracer provider whose spans are appended to the file.
pub(crate) fn install(path: &Path, service: &'static str) -> SdkTracerProvider {
    let resource = Resource::builder().with_service_name(service).build();
    let log = SpanLog { path: path.to_owned(), resource: (&resource).into() };
    let provider = SdkTracerProvider::builder().with_resource(resource).with_simple_exporter(log).build();
    opentelemetry::global::set_tracer_provider(provider.clone());
    provider
}

/// Reads all spans in the file, including those of earlier runs.
pub(crate) fn read(path: &Path) -> Result<Traces> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    verify::otlp::read(BufReader::new(file)).with_context(|| format!("cannot read {}", path.display()))
}

impl SpanLog {
    fn add(&self, spans: Vec<SpanData>) -> Result<()> {
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let mut line = serde_json::to_vec(&ExportTraceServiceRequest { resource_spans })?;
        line.push(b'\n');
        // One write, so that a program that is killed does not leave half a line.
        Ok(File::options().create(true).append(true).open(&self.path)?.write_all(&line)?)
    }
}

impl SpanExporter for SpanLog {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.add(batch).map_err(|error| OTelSdkError::InternalFailure(error.to_string()))
    }
}

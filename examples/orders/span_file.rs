//! Every exported span, written as OTLP/JSON and read back.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;
use traced_broker::verify::{self, Traces};

/// How many spans of a service make one export request.
const SPANS_PER_REQUEST: usize = 128;

/// A file with one OTLP/JSON export request a line, as the Collector's file exporter writes it. Cheap to clone.
///
/// Services never wait for a queue here and never lose a span to a full one: they write the file themselves.
#[derive(Debug, Clone)]
pub(crate) struct SpanFile {
    path: Option<PathBuf>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    writer: BufWriter<File>,
    written: Written,
    /// The first write that failed; none is tried after it.
    failed: Option<io::Error>,
}

/// How much has been written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) spans: usize,
    pub(crate) bytes: usize,
}

impl SpanFile {
    /// A new file at this path, or one without a name that ends with the process.
    pub(crate) fn create(path: Option<&Path>) -> Result<Self> {
        let file = match path {
            Some(path) => File::options().create(true).truncate(true).write(true).read(true).open(path),
            None => tempfile::tempfile(),
        };
        let shown = path.map_or_else(|| "a temporary file".to_owned(), |path| path.display().to_string());
        let writer = BufWriter::new(file.with_context(|| format!("cannot write spans to {shown}"))?);
        let state = State { writer, written: Written::default(), failed: None };
        Ok(Self { path: path.map(Path::to_owned), state: Arc::new(Mutex::new(state)) })
    }

    /// An exporter for one service.
    pub(crate) fn exporter(&self) -> FileExporter {
        FileExporter {
            file: self.clone(),
            resource: ResourceAttributesWithSchema::default(),
            pending: Mutex::default(),
        }
    }

    /// Where it is, unless it has no name.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    pub(crate) fn written(&self) -> Written {
        self.state.lock().written
    }

    /// The spans that are in the file now.
    pub(crate) fn read_back(&self) -> Result<Traces> {
        let mut state = self.state.lock();
        if let Some(error) = state.failed.take() {
            return Err(error).context("cannot write the spans");
        }
        state.writer.flush().context("cannot write the spans")?;
        let file = state.writer.get_mut();
        file.rewind().context("cannot read the spans back")?;
        verify::otlp::read(BufReader::new(file)).context("cannot read the spans back")
    }

    fn write(&self, spans: Vec<SpanData>, resource: &ResourceAttributesWithSchema) -> OTelSdkResult {
        let count = spans.len();
        let request = ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(spans, resource) };
        let line = serde_json::to_vec(&request).map_err(|error| OTelSdkError::InternalFailure(error.to_string()))?;
        let mut state = self.state.lock();
        if state.failed.is_some() {
            return Ok(());
        }
        if let Err(error) = state.writer.write_all(&line).and_then(|()| state.writer.write_all(b"\n")) {
            let told = OTelSdkError::InternalFailure(error.to_string());
            state.failed = Some(error);
            return Err(told);
        }
        state.written.spans += count;
        state.written.bytes += line.len() + 1;
        Ok(())
    }
}

/// Writes one service's spans, a request's worth at a time.
#[derive(Debug)]
pub(crate) struct FileExporter {
    file: SpanFile,
    resource: ResourceAttributesWithSchema,
    /// Fewer than a request's worth.
    pending: Mutex<Vec<SpanData>>,
}

impl FileExporter {
    fn keep(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let mut pending = self.pending.lock();
        pending.extend(spans);
        if pending.len() < SPANS_PER_REQUEST {
            return Ok(());
        }
        let request = std::mem::take(&mut *pending);
        drop(pending);
        self.file.write(request, &self.resource)
    }
}

impl SpanExporter for FileExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.keep(batch)
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        let rest = std::mem::take(&mut *self.pending.lock());
        if rest.is_empty() { Ok(()) } else { self.file.write(rest, &self.resource) }
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

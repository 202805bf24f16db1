//! The running telemetry, and its shutdown.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::global;
use opentelemetry::metrics::noop::NoopMeterProvider;
use opentelemetry::propagation::TextMapCompositePropagator;
use opentelemetry::trace::noop::NoopTracerProvider;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::sync::{OnceCell, oneshot};

use super::propagators::Propagators;
use crate::broker::Traced;
use crate::driver::Driver;
use crate::error::{Error, ErrorKind, Result};

/// Maximum duration of the last exports in a shutdown.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// Maximum duration of the last exports without a shutdown, which may block a thread of a runtime.
const DROPPED: Duration = Duration::from_secs(2);

/// The providers and the propagators that a [`Setup`](super::Setup) started.
///
/// Call [`shutdown`](Self::shutdown) before the program ends, after its brokers are closed: spans
/// and measurements not exported by then are only in memory. If a `Telemetry` is dropped without a
/// shutdown, it blocks for up to two seconds to export the rest, and logs a warning.
pub struct Telemetry {
    /// `None` if the environment disables the SDK.
    sdk: Option<Sdk>,
    propagators: Propagators,
    ended: OnceCell<()>,
    ending: AtomicBool,
}

#[derive(Debug, Clone)]
struct Sdk {
    tracers: SdkTracerProvider,
    meters: SdkMeterProvider,
}

impl Telemetry {
    pub(super) fn running(tracers: SdkTracerProvider, meters: SdkMeterProvider, propagators: Propagators) -> Self {
        let sdk = Some(Sdk { tracers, meters });
        Self { sdk, propagators, ended: OnceCell::new(), ending: AtomicBool::new(false) }
    }

    pub(super) fn disabled(propagators: Propagators) -> Self {
        Self { sdk: None, propagators, ended: OnceCell::new(), ending: AtomicBool::new(false) }
    }

    /// Configures the broker's spans, measurements and headers as the environment specifies.
    #[must_use]
    pub fn instrument<D: Driver + Clone>(&self, broker: Traced<D>) -> Traced<D> {
        let broker = match &self.sdk {
            Some(sdk) => broker.with_tracer_provider(&sdk.tracers).with_meter_provider(&sdk.meters),
            None => {
                broker.with_tracer_provider(&NoopTracerProvider::new()).with_meter_provider(&NoopMeterProvider::new())
            }
        };
        // The broker's own codec is stricter than any propagator can be.
        if self.propagators.is_default() { broker } else { broker.with_propagator(self.propagator()) }
    }

    /// Returns the provider of tracers, for the application's own spans; `None` if
    /// `OTEL_SDK_DISABLED` is set.
    ///
    /// It does not outlive the [shutdown](Self::shutdown): its tracers create no spans after that.
    pub fn tracer_provider(&self) -> Option<&SdkTracerProvider> {
        self.sdk.as_ref().map(|sdk| &sdk.tracers)
    }

    /// Returns the provider of meters; `None` if `OTEL_SDK_DISABLED` is set.
    pub fn meter_provider(&self) -> Option<&SdkMeterProvider> {
        self.sdk.as_ref().map(|sdk| &sdk.meters)
    }

    /// Returns the propagators of `OTEL_PROPAGATORS` as one, for use outside brokers, such as in an
    /// HTTP server.
    pub fn propagator(&self) -> TextMapCompositePropagator {
        self.propagators.composite()
    }

    /// Installs the propagators and, if there is an SDK, the providers as OpenTelemetry's global
    /// ones.
    pub(super) fn install(&self) {
        if let Some(sdk) = &self.sdk {
            global::set_tracer_provider(sdk.tracers.clone());
            global::set_meter_provider(sdk.meters.clone());
        }
        global::set_text_map_propagator(self.propagator());
    }

    /// Exports everything that has ended so far, and waits for it without blocking the thread.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the Collector did not accept all of it.
    pub async fn flush(&self) -> Result<()> {
        let Some(sdk) = self.sdk.clone() else { return Ok(()) };
        apart(None, move || sdk.flush()).await
    }

    /// Exports the rest and stops, within ten seconds, without blocking the thread. A second call
    /// waits for the first and is a no-op.
    ///
    /// ```rust,standalone_crate
    /// use traced_broker::{ErrorKind, Message, TracedBroker, connect, otlp};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
    /// # // SAFETY: no other thread reads the environment.
    /// # unsafe { std::env::set_var("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:1") };
    /// let telemetry = otlp::Setup::new().service_name("order-api").start()?;
    /// let broker = telemetry.instrument(connect("memory://").await?);
    /// broker.publish("orders", Message::new("one pair of shoes")).await?;
    /// broker.close().await?;
    ///
    /// // The Collector is down, so the spans are lost.
    /// let error = telemetry.shutdown().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unavailable);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the Collector did not accept all of it in time; the telemetry
    /// has stopped nevertheless.
    ///
    /// # Cancellation
    /// If the future is dropped, the last exports continue.
    pub async fn shutdown(&self) -> Result<()> {
        let Some(sdk) = &self.sdk else { return Ok(()) };
        let end = || async {
            let sdk = sdk.clone();
            // An earlier call that was cancelled or failed has already started the exports.
            let again = self.ending.swap(true, Ordering::AcqRel);
            apart(Some(SHUTDOWN), move || if again { sdk.end(SHUTDOWN) } else { sdk.finish() }).await
        };
        self.ended.get_or_try_init(end).await.copied()
    }
}

impl Sdk {
    fn flush(&self) -> OTelSdkResult {
        self.tracers.force_flush().and(self.meters.force_flush())
    }

    /// Exports the rest and stops. Only a flush reports the fate of the last spans; a shutdown does
    /// not.
    fn finish(&self) -> OTelSdkResult {
        let deadline = Instant::now() + SHUTDOWN;
        let flushed = self.tracers.force_flush();
        flushed.and(self.end(deadline.saturating_duration_since(Instant::now())))
    }

    /// Stops both, even if the first does not finish in time.
    fn end(&self, within: Duration) -> OTelSdkResult {
        let deadline = Instant::now() + within;
        let traces = or_before(self.tracers.shutdown_with_timeout(within));
        let rest = deadline.saturating_duration_since(Instant::now());
        let metrics = or_before(self.meters.shutdown_with_timeout(rest));
        traces.and(metrics)
    }
}

/// Ignores the error that the telemetry has already been stopped, by another caller or an earlier
/// call.
fn or_before(result: OTelSdkResult) -> OTelSdkResult {
    match result {
        Err(OTelSdkError::AlreadyShutdown) => Ok(()),
        result => result,
    }
}

/// Runs blocking work on its own thread, whatever the runtime, and waits for at most `limit`.
async fn apart(limit: Option<Duration>, work: impl FnOnce() -> OTelSdkResult + Send + 'static) -> Result<()> {
    let (done, result) = oneshot::channel();
    let work = move || {
        let result = match limit {
            Some(limit) => bounded(limit, work),
            None => work(),
        };
        // The caller may have been cancelled.
        let _cancelled = done.send(result);
    };
    let not_taken = || Error::new(ErrorKind::Unavailable, "not all telemetry could be exported");
    start(work).map_err(|error| not_taken().with_source(error))?;
    match result.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(not_taken().with_source(error)),
        Err(ended) => Err(not_taken().with_source(ended)),
    }
}

/// Runs work for at most this time: the SDK ends exports by limits of its own, one after the other.
/// Work that takes longer goes on, and its result is lost.
fn bounded(limit: Duration, work: impl FnOnce() -> OTelSdkResult + Send + 'static) -> OTelSdkResult {
    let (done, result) = mpsc::sync_channel(1);
    start(move || {
        let _given_up = done.send(work());
    })?;
    result.recv_timeout(limit).unwrap_or(Err(OTelSdkError::Timeout(limit)))
}

fn start(work: impl FnOnce() + Send + 'static) -> OTelSdkResult {
    let refused = |error| OTelSdkError::InternalFailure(format!("the export thread did not start: {error}"));
    thread::Builder::new().name("otlp-flush".to_owned()).spawn(work).map(drop).map_err(refused)
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let Some(sdk) = self.sdk.take() else { return };
        if self.ending.load(Ordering::Acquire) {
            return;
        }
        tracing::warn!("telemetry was dropped without a shutdown: exporting the rest, for at most two seconds");
        if let Err(error) = bounded(DROPPED, move || sdk.end(DROPPED)) {
            tracing::warn!(%error, "telemetry was lost");
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the providers: their exporters contain headers.
        let mut out = f.debug_struct("Telemetry");
        out.field("disabled", &self.sdk.is_none()).field("propagators", &self.propagators);
        out.field("ended", &self.ended.initialized()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::metrics::Temporality;
    use opentelemetry_sdk::metrics::data::ResourceMetrics;
    use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
    use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanExporter};

    use super::*;

    /// An exporter that keeps the names of spans, after a delay, or fails.
    #[derive(Debug, Clone, Default)]
    struct Slow {
        names: Arc<Mutex<Vec<String>>>,
        fails: bool,
    }

    impl SpanExporter for Slow {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            thread::sleep(Duration::from_millis(50));
            if self.fails {
                return Err(OTelSdkError::InternalFailure("refused".to_owned()));
            }
            self.names.lock().unwrap().extend(batch.into_iter().map(|span| span.name.into_owned()));
            Ok(())
        }
    }

    fn telemetry(exporter: &Slow) -> Telemetry {
        let processor = BatchSpanProcessor::builder(exporter.clone()).build();
        let tracers = SdkTracerProvider::builder().with_span_processor(processor).build();
        let meters = SdkMeterProvider::builder().build();
        let telemetry = Telemetry::running(tracers, meters, Propagators::default());
        drop(telemetry.tracer_provider().unwrap().tracer("test").start("work"));
        telemetry
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_last_spans_are_exported_at_the_shutdown_and_only_once() {
        let exporter = Slow::default();
        let telemetry = telemetry(&exporter);
        // The thread is not blocked meanwhile.
        let ticks = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            exporter.names.lock().unwrap().len()
        };
        let (first, second, before) = tokio::join!(telemetry.shutdown(), telemetry.shutdown(), ticks);
        assert!(first.is_ok() && second.is_ok() && telemetry.shutdown().await.is_ok());
        assert_eq!((before, exporter.names.lock().unwrap().as_slice()), (0, &["work".to_owned()][..]));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_flush_exports_and_goes_on() {
        let exporter = Slow::default();
        let telemetry = telemetry(&exporter);
        telemetry.flush().await.unwrap();
        drop(telemetry.tracer_provider().unwrap().tracer("test").start("more"));
        telemetry.flush().await.unwrap();
        assert_eq!(exporter.names.lock().unwrap().as_slice(), ["work", "more"]);
        telemetry.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_the_collector_refuses_is_an_error_of_the_first_shutdown() {
        let telemetry = telemetry(&Slow { fails: true, ..Slow::default() });
        let error = telemetry.shutdown().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        telemetry.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_shutdown_that_nobody_waits_for_goes_on() {
        let exporter = Slow::default();
        let telemetry = telemetry(&exporter);
        let cancelled = tokio::time::timeout(Duration::from_millis(5), telemetry.shutdown()).await;
        assert!(cancelled.is_err());
        telemetry.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(exporter.names.lock().unwrap().len(), 1);
    }

    /// Returns the log written while the telemetry is dropped.
    fn logged_by_dropping(telemetry: Telemetry) -> String {
        let log = Arc::<Mutex<Vec<u8>>>::default();
        let subscriber = tracing_subscriber::fmt().with_writer(Arc::new(Log(Arc::clone(&log)))).finish();
        tracing::subscriber::with_default(subscriber, || drop(telemetry));
        String::from_utf8(std::mem::take(&mut *log.lock().unwrap())).unwrap()
    }

    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for &Log {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_drop_without_a_shutdown_exports_what_is_left_and_says_so() {
        let exporter = Slow::default();
        let log = logged_by_dropping(telemetry(&exporter));
        assert!(log.contains("without a shutdown"), "{log}");
        assert_eq!(exporter.names.lock().unwrap().as_slice(), ["work"]);

        let ended = telemetry(&Slow::default());
        ended.shutdown().await.unwrap();
        assert!(!logged_by_dropping(ended).contains("without a shutdown"));
        assert!(!logged_by_dropping(Telemetry::disabled(Propagators::default())).contains("without a shutdown"));
    }

    /// An exporter that waits for an answer which does not come.
    #[derive(Debug)]
    struct Silent;

    impl SpanExporter for Silent {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            thread::sleep(Duration::from_secs(60));
            Ok(())
        }
    }

    impl PushMetricExporter for Silent {
        async fn export(&self, _: &ResourceMetrics) -> OTelSdkResult {
            thread::sleep(Duration::from_secs(60));
            Ok(())
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            thread::sleep(Duration::from_secs(60));
            Ok(())
        }

        fn temporality(&self) -> Temporality {
            Temporality::Cumulative
        }
    }

    fn unanswered() -> Telemetry {
        let tracers = SdkTracerProvider::builder().with_span_processor(BatchSpanProcessor::builder(Silent).build());
        let meters = SdkMeterProvider::builder().with_periodic_exporter(Silent).build();
        let telemetry = Telemetry::running(tracers.build(), meters, Propagators::default());
        drop(telemetry.tracer_provider().unwrap().tracer("test").start("work"));
        telemetry.meter_provider().unwrap().meter("test").u64_counter("work").build().add(1, &[]);
        telemetry
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_collector_that_is_silent_holds_the_end_up_no_longer_than_documented() {
        let began = Instant::now();
        let error = unanswered().shutdown().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(began.elapsed() < SHUTDOWN + Duration::from_secs(2), "{:?}", began.elapsed());

        let began = Instant::now();
        assert!(logged_by_dropping(unanswered()).contains("telemetry was lost"));
        assert!(began.elapsed() < DROPPED + Duration::from_secs(2), "{:?}", began.elapsed());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_of_the_exporter_is_printed() {
        let telemetry = telemetry(&Slow::default());
        let text = format!("{telemetry:?}");
        assert!(text.starts_with("Telemetry { disabled: false") && !text.contains("Slow"), "{text}");
    }
}

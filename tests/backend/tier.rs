//! Both tiers, with the files of `deploy/collector`, in front of a Jaeger.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use traced_broker::verify::{self, Span, TraceId, Traces};

use crate::support::{Jaeger, Kind, Server};

/// The name that resolves to an address of each back end.
const NAME: &str = "sampling.test";
/// The addresses. All back ends listen on the same ports, each at its own address.
const ADDRESSES: [&str; 2] = ["127.0.0.2", "127.0.0.3"];
/// Maximum duration of the way through two Collectors.
const PATIENCE: Duration = Duration::from_secs(60);

/// All spans of each trace; grouped by where they were sent to or found.
pub(crate) type ByTrace = BTreeMap<TraceId, Vec<Span>>;

/// A front Collector, two sampling Collectors, and a Jaeger. The last fields are dropped last.
pub(crate) struct Tier {
    front: Server,
    back_ends: Vec<Server>,
    jaeger: Jaeger,
    place: TempDir,
}

/// Returns the path of a file in `deploy/`.
pub(crate) fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

impl Tier {
    /// Starts all parts; the back ends get these variables.
    pub(crate) fn start(settings: &[(&'static str, &str)]) -> Self {
        Self::start_routing(settings, None)
    }

    /// Starts all parts; the front Collector gets a file that overrides parts of the shipped one.
    pub(crate) fn start_routing(settings: &[(&'static str, &str)], changes: Option<&Path>) -> Self {
        let place = tempfile::tempdir().unwrap();
        let jaeger = Jaeger::start();
        let port = Server::free_port(Kind::Collector);
        let watch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backend/watch.yaml");
        let back_end = |(index, address): (usize, &&str)| {
            let mut environment = vec![
                ("COLLECTOR_CONFIG", format!("{} {}", shipped("collector/sampling.yaml").display(), watch.display())),
                ("LISTEN_ADDRESS", (*address).to_owned()),
                ("TRACES_ENDPOINT", jaeger.otlp_endpoint()),
                ("RECEIVED", received_by(place.path(), index).to_str().unwrap().to_owned()),
            ];
            environment.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
            Server::start_at(Kind::Collector, port, environment)
        };
        let back_ends = ADDRESSES.iter().enumerate().map(back_end).collect();

        let hosts = place.path().join("hosts");
        let lines = ADDRESSES.map(|address| format!("{address} {NAME}\n")).concat();
        fs::write(&hosts, format!("127.0.0.1 localhost\n{lines}")).unwrap();
        let mut config = shipped("collector/front.yaml").to_str().unwrap().to_owned();
        if let Some(changes) = changes {
            config = format!("{config} {}", changes.display());
        }
        let environment = vec![
            ("COLLECTOR_CONFIG", config),
            ("COLLECTOR_HOSTS", hosts.to_str().unwrap().to_owned()),
            ("SAMPLING_HOSTNAME", NAME.to_owned()),
            ("SAMPLING_PORT", (port + 2).to_string()),
        ];
        let front = Server::start_at(Kind::Collector, Server::free_port(Kind::Collector), environment);
        Self { front, back_ends, jaeger, place }
    }

    /// Returns the endpoint for services, OTLP over HTTP.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.front.port() + 1)
    }

    /// Returns the scrape targets behind this name, at a port of the shipped files.
    pub(crate) fn scraped(&self, name: &str, port: u64) -> Vec<String> {
        // Same offsets as in the Collector's script.
        let offset = match port {
            8888 => 3,
            8889 => 4,
            other => panic!("nothing to scrape at {other}"),
        };
        match name {
            "front" => vec![format!("127.0.0.1:{}", self.front.port() + offset)],
            "sampling" => {
                self.back_ends.iter().zip(ADDRESSES).map(|(end, at)| format!("{at}:{}", end.port() + offset)).collect()
            }
            other => panic!("nobody is called {other}"),
        }
    }

    /// Returns the spans received by each back end, once there are this many in total.
    ///
    /// # Panics
    /// If fewer arrive.
    pub(crate) fn received(&self, spans: usize) -> Vec<ByTrace> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let received: Vec<ByTrace> =
                (0..self.back_ends.len()).map(|index| read_lines(&received_by(self.place.path(), index))).collect();
            let count: usize = received.iter().flat_map(BTreeMap::values).map(Vec::len).sum();
            if count >= spans {
                return received;
            }
            assert!(Instant::now() < deadline, "{count} of {spans} spans at the back ends");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Returns the traces in Jaeger in which any of these services has a span, with all their
    /// spans.
    pub(crate) fn kept(&self, services: &[&str]) -> ByTrace {
        let mut kept = ByTrace::new();
        for service in services {
            let answer = self.ask(&format!("/api/traces?service={service}&limit=100000&lookback=1h"));
            let traces = verify::answer::jaeger(&answer).expect("an answer of Jaeger");
            kept.extend(by_trace(&traces));
        }
        kept
    }

    fn ask(&self, question: &str) -> Vec<u8> {
        let url = self.jaeger.query_url() + question;
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let response = client.get(&url).send().await.unwrap();
            assert!(response.status().is_success(), "{url}: {}", response.status());
            response.bytes().await.unwrap().to_vec()
        })
    }
}

fn received_by(place: &Path, index: usize) -> PathBuf {
    place.join(format!("received-{index}.jsonl"))
}

/// Reads the complete lines of a file that may still be written.
fn read_lines(path: &Path) -> ByTrace {
    let text = fs::read(path).unwrap_or_default();
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    by_trace(&verify::otlp::read(BufReader::new(&text[..end])).expect("what a Collector wrote"))
}

/// Groups the spans by trace and removes duplicates: an exporter sends again if it gets no answer.
pub(crate) fn by_trace(traces: &Traces) -> ByTrace {
    let once = |spans: &[Span]| spans.iter().map(|span| (span.span_id, span.clone())).collect::<BTreeMap<_, _>>();
    traces.iter().map(|trace| (trace.id(), once(trace.spans()).into_values().collect())).collect()
}

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

/// The name with an address for each back end.
const NAME: &str = "sampling.test";
/// The addresses. A port belongs to an address, so that all back ends have the same ports.
const ADDRESSES: [&str; 2] = ["127.0.0.2", "127.0.0.3"];
/// How long spans may take through two Collectors.
const PATIENCE: Duration = Duration::from_secs(60);

/// All spans of each trace, by what they were sent to or found in.
pub(crate) type ByTrace = BTreeMap<TraceId, Vec<Span>>;

/// A front Collector, two that sample, and a Jaeger. The last fields end last.
pub(crate) struct Tier {
    front: Server,
    back_ends: Vec<Server>,
    jaeger: Jaeger,
    place: TempDir,
}

/// A file of `deploy/`.
pub(crate) fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

impl Tier {
    /// Starts all of them; the back ends with these variables.
    pub(crate) fn start(settings: &[(&'static str, &str)]) -> Self {
        Self::start_routing(settings, None)
    }

    /// Starts all of them; the front with a file that changes what the shipped one says.
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

    /// Where services send to, OTLP over HTTP.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.front.port() + 1)
    }

    /// Where to scrape what these names stand for, at a port of the shipped files.
    pub(crate) fn scraped(&self, name: &str, port: u64) -> Vec<String> {
        // As the Collector's script lays them out.
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

    /// What each back end received, once that is so many spans in all.
    ///
    /// # Panics
    /// When fewer come.
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

    /// The traces in Jaeger that any of these services has a span in, with all of their spans.
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

/// The whole lines of a file that may still be written.
fn read_lines(path: &Path) -> ByTrace {
    let text = fs::read(path).unwrap_or_default();
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    by_trace(&verify::otlp::read(BufReader::new(&text[..end])).expect("what a Collector wrote"))
}

/// The spans of each trace, each once: an exporter that waits for an answer in vain sends again.
pub(crate) fn by_trace(traces: &Traces) -> ByTrace {
    let once = |spans: &[Span]| spans.iter().map(|span| (span.span_id, span.clone())).collect::<BTreeMap<_, _>>();
    traces.iter().map(|trace| (trace.id(), once(trace.spans()).into_values().collect())).collect()
}

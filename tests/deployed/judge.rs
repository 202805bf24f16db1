//! The command as the judge, and Jaeger as its witness.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::Jaeger;

/// The exit code and output of `verify`.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) code: i32,
    pub(crate) json: Value,
    pub(crate) stderr: String,
}

/// Posts an order and judges its trace.
pub(crate) fn post(jaeger: &Jaeger, url: &str, order: &Value, arguments: &[&str]) -> Verdict {
    let (request, data) = (format!("POST {url}"), order.to_string());
    verify(jaeger, &[&["--request", &request, "--data", &data], arguments].concat())
}

/// Runs `traced-broker verify` with these arguments.
pub(crate) fn verify(jaeger: &Jaeger, arguments: &[&str]) -> Verdict {
    let mut command = Command::new(env!("CARGO_BIN_EXE_traced-broker"));
    command.args(["verify", "--json", "--settle", "1500ms", "--jaeger", &jaeger.query_url()]).args(arguments);
    let output = command.stdin(Stdio::null()).output().expect("the command was just built");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{stderr}");
    let json = serde_json::from_slice(&output.stdout);
    let json = json.unwrap_or_else(|error| panic!("{error}: {stderr}{}", String::from_utf8_lossy(&output.stdout)));
    Verdict { code: output.status.code().unwrap(), json, stderr }
}

impl Verdict {
    /// Fails unless the trace is whole.
    #[track_caller]
    pub(crate) fn has_to_be_whole(self) -> Self {
        assert_eq!((self.code, self.json["verdict"].as_str()), (0, Some("whole")), "{self:#?}");
        assert!(self.stderr.is_empty(), "{self:#?}");
        self
    }

    /// Fails unless the trace broke in exactly one place: after the span `name` of `service`, most
    /// likely for these causes.
    #[track_caller]
    pub(crate) fn broke_after(self, name: &str, service: &str, causes: &[&str]) -> Self {
        assert_eq!((self.code, self.json["verdict"].as_str()), (1, Some("broken")), "{self:#?}");
        let breaks = self.json["breaks"].as_array().unwrap();
        assert_eq!(breaks.len(), 1, "{self:#?}");
        let last_good = &breaks[0]["last_good"];
        assert_eq!(
            (last_good["name"].as_str(), last_good["service"].as_str()),
            (Some(name), Some(service)),
            "{self:#?}"
        );
        let named: Vec<_> = breaks[0]["causes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(named.starts_with(causes), "{causes:?}: {self:#?}");
        // If the context was lost, the finding names the trace in which the message continued.
        assert_eq!(breaks[0]["stray"].is_object(), causes.contains(&"no_header"), "{self:#?}");
        self
    }

    /// Returns the attempts to process the messages sent to this topic.
    pub(crate) fn attempts(&self, topic: &str) -> Vec<u64> {
        let hops = self.json["hops"].as_array().unwrap().iter();
        // A broker may append the queue to the topic's name.
        let mut attempts: Vec<_> = hops
            .filter(|hop| hop["topic"].as_str().is_some_and(|name| name.split(':').next() == Some(topic)))
            .filter_map(|hop| hop["attempt"].as_u64())
            .collect();
        attempts.sort_unstable();
        attempts
    }
}

/// Returns the job's trace, once Jaeger has it.
pub(crate) fn trace_of_the_job(jaeger: &Jaeger) -> String {
    let url = format!("{}/api/traces?service=reconciliation-job", jaeger.query_url());
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer: Option<Value> = get(&url);
        let trace = answer.as_ref().and_then(|answer| answer["data"][0]["traceID"].as_str());
        if let Some(trace) = trace {
            return trace.to_owned();
        }
        assert!(Instant::now() < deadline, "no job in Jaeger: {answer:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

fn get(url: &str) -> Option<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    runtime.block_on(async { client.get(url).send().await.ok()?.json().await.ok() })
}

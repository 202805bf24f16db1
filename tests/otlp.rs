//! Telemetry from the environment: a separate program for each environment, and a server on
//! loopback that receives its exports.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "otlp/receiver.rs"]
mod receiver;
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use receiver::Receiver;
use support::program;

/// Runs the example in this environment only.
async fn run(variables: &[(&str, &str)]) -> Output {
    let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let run = move || {
        let mut command = Command::new(program());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OTEL_")) {
            command.env_remove(name);
        }
        command.envs(variables).output().expect("the program was just built")
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Returns the path of the program, which is built once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| program::example("otlp"))
}

/// Calls [`run`] for a program that must succeed; returns its output.
async fn well(variables: &[(&str, &str)]) -> String {
    let output = run(variables).await;
    assert!(output.status.success(), "{variables:?}: {}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.ends_with("1 handled\n"), "{printed}");
    printed
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

#[tokio::test(flavor = "multi_thread")]
async fn spans_and_measurements_arrive_with_who_sent_them() {
    let receiver = Receiver::start().await;
    let printed = well(&[
        (ENDPOINT, &receiver.url),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.version=7"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shoes,authorization=Bearer%20hunter2"),
    ])
    .await;
    assert!(printed.contains("traceparent: 00-"), "{printed}");

    let spans = receiver.spans();
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert!(names.contains(&"send orders") && names.contains(&"process orders"), "{names:?}");
    let one_trace = spans.iter().all(|span| span.trace_id == spans[0].trace_id);
    assert!(one_trace, "{spans:?}");
    let resources = receiver.resources();
    assert!(!resources.is_empty());
    for resource in resources {
        assert_eq!(resource["service.name"], "shop", "{resource:?}");
        assert_eq!(resource["deployment.environment.name"], "test", "{resource:?}");
        assert_eq!(resource["service.version"], "7", "{resource:?}");
        assert_eq!(resource["telemetry.sdk.language"], "rust", "{resource:?}");
    }
    let metrics = receiver.metrics();
    assert!(metrics.iter().any(|name| name == "messaging.client.sent.messages"), "{metrics:?}");
    for (path, headers) in receiver.requests() {
        assert!(["/v1/traces", "/v1/metrics"].contains(&path.as_str()), "{path}");
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["x-tenant"], "shoes");
        assert_eq!(headers["authorization"], "Bearer hunter2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_are_compressed_when_asked() {
    for (variables, compressed) in [
        (&[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")][..], &["/v1/metrics", "/v1/traces"][..]),
        (&[("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip")], &["/v1/traces"]),
        (&[("OTEL_EXPORTER_OTLP_COMPRESSION", "none")], &[]),
    ] {
        let receiver = Receiver::start().await;
        well(&[&[(ENDPOINT, &*receiver.url)], variables].concat()).await;
        assert!(!receiver.spans().is_empty() && !receiver.metrics().is_empty(), "{variables:?}");
        for (path, headers) in receiver.requests() {
            assert_eq!(headers.contains_key("content-encoding"), compressed.contains(&&*path), "{variables:?} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_names_the_service_before_the_program_does() {
    for variable in [("OTEL_SERVICE_NAME", "warehouse"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=warehouse")] {
        let receiver = Receiver::start().await;
        well(&[(ENDPOINT, &receiver.url), variable]).await;
        assert!(receiver.resources().iter().all(|resource| resource["service.name"] == "warehouse"), "{variable:?}");
        assert!(!receiver.spans().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn either_signal_goes_elsewhere_or_nowhere() {
    let (traces, metrics) = (Receiver::start().await, Receiver::start().await);
    let (here, there) = (format!("{}/in?a=b", traces.url), format!("{}/v1/metrics", metrics.url));
    well(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &here), ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &there)]).await;
    let paths = |receiver: &Receiver| receiver.requests().into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert!(!paths(&traces).is_empty() && paths(&traces).iter().all(|path| path == "/in"), "{:?}", paths(&traces));
    assert!(!paths(&metrics).is_empty() && paths(&metrics).iter().all(|path| path == "/v1/metrics"));

    for (variable, spans, measurements) in [
        (("OTEL_TRACES_EXPORTER", "none"), false, true),
        (("OTEL_METRICS_EXPORTER", "none"), true, false),
        (("OTEL_TRACES_SAMPLER", "always_off"), false, true),
        (("OTEL_SDK_DISABLED", "true"), false, false),
    ] {
        let receiver = Receiver::start().await;
        let printed = well(&[(ENDPOINT, &receiver.url), variable]).await;
        assert_eq!(
            (!receiver.spans().is_empty(), !receiver.metrics().is_empty()),
            (spans, measurements),
            "{variable:?}"
        );
        let flags = printed.lines().find_map(|line| line.strip_prefix("traceparent: ")?.get(53..));
        let sampled = match variable.0 {
            // Spans are created, and not exported.
            "OTEL_TRACES_EXPORTER" | "OTEL_METRICS_EXPORTER" => Some("01"),
            "OTEL_TRACES_SAMPLER" => Some("00"),
            _ => None,
        };
        assert_eq!(flags, sampled, "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_travels_with_the_headers_of_the_propagators() {
    for (list, present, absent) in [
        ("b3", &["b3: "][..], "traceparent"),
        ("b3multi,baggage", &["x-b3-traceid: ", "X-B3-TraceId: ", "x-b3-sampled: 1"], "traceparent"),
        ("jaeger,tracecontext", &["uber-trace-id: ", "traceparent: 00-"], "b3: "),
        ("none", &[], "traceparent"),
    ] {
        let receiver = Receiver::start().await;
        let printed = well(&[(ENDPOINT, &receiver.url), ("OTEL_PROPAGATORS", list)]).await;
        assert!(present.iter().all(|header| printed.contains(header)), "{list}: {printed}");
        assert!(!printed.contains(absent), "{list}: {printed}");
        let spans = receiver.spans();
        let one_trace = spans.iter().all(|span| span.trace_id == spans[0].trace_id);
        assert!(spans.len() >= 2 && one_trace == (list != "none"), "{list}: {spans:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_stops_the_program_and_no_secret_is_said() {
    for (name, value) in [
        ("OTEL_PROPAGATORS", "tracecontext,hunter2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization hunter2"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2@collector"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_CONFIG_FILE", "/etc/hunter2.yaml"),
        ("OTEL_BSP_SCHEDULE_DELAY", "hunter2"),
    ] {
        let output = run(&[(name, value)]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(name) && !said.contains("hunter2"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_is_told_in_time() {
    // Accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2");
    tokio::task::spawn_blocking(program).await.unwrap();
    let began = Instant::now();
    let output = run(&[(ENDPOINT, &endpoint), headers, ("OTEL_EXPORTER_OTLP_TIMEOUT", "700")]).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("not all telemetry could be exported"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    // The work was done all the same.
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("1 handled\n"));
}

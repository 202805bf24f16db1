//! The files of `deploy/`, checked by the programs that read them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::tier::shipped;

/// Runs one of the testbed's scripts.
fn script(name: &str, arguments: &[&str]) -> Output {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed").join(name);
    Command::new(path).args(arguments).stdin(Stdio::null()).output().expect("the script runs")
}

/// Runs a script, asserts that it succeeds, and returns its output.
fn run(name: &str, arguments: &[&str]) -> String {
    let output = script(name, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name} {arguments:?}:\n{said}");
    String::from_utf8(output.stdout).unwrap()
}

fn path(name: &str) -> String {
    shipped(name).to_str().unwrap().to_owned()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("YAML")
}

/// Reads a version from the file `tests/testbed/versions`.
fn version(name: &str) -> String {
    let versions = include_str!("../testbed/versions");
    let line = versions.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.expect("a version of that name").to_owned()
}

#[test]
fn the_collector_takes_its_files() {
    let [front, sampling, jaeger] =
        ["front", "sampling", "also-to-jaeger"].map(|name| path(&format!("collector/{name}.yaml")));
    for files in [&[front.as_str()][..], &[&sampling], &[&sampling, &jaeger]] {
        let arguments: Vec<&str> = ["validate"].iter().chain(files).copied().collect();
        run("collector", &arguments);
    }
    // The validation reads the contents of the files, not only their presence.
    let output = script("collector", &["validate", &jaeger]);
    assert!(!output.status.success(), "a part of a configuration is none");
}

#[test]
fn the_sampling_tier_decides_as_promised() {
    let file = yaml(&fs::read_to_string(shipped("collector/sampling.yaml")).unwrap());
    let sampling = &file["processors"]["tail_sampling"];
    assert_eq!(sampling["decision_wait"], "${env:DECISION_WAIT:-30s}");
    assert_eq!(sampling["num_traces"], "${env:NUM_TRACES:-50000}");
    assert_eq!(sampling["expected_new_traces_per_sec"], 1000);
    let policies = sampling["policies"].as_array().unwrap();
    assert_eq!(policies.len(), 3);
    assert_eq!(policies[0]["status_code"]["status_codes"][0], "ERROR");
    assert_eq!(policies[1]["latency"]["threshold_ms"], 2000);
    assert_eq!(policies[2]["probabilistic"]["sampling_percentage"], 5);
    let traces = &file["service"]["pipelines"]["traces"];
    assert_eq!(traces["processors"].as_array().unwrap()[1..], ["tail_sampling", "batch"]);
    assert_eq!(traces["exporters"], serde_json::json!(["otlp_http/traces"]));
    // The measured traces have not been sampled.
    let measured = &file["service"]["pipelines"]["traces/measured"];
    assert_eq!(
        (&measured["receivers"][0], &measured["processors"]),
        (&"otlp".into(), &serde_json::json!(["memory_limiter"]))
    );
}

#[test]
fn kubernetes_takes_the_manifests() {
    let printed = run("manifests", &["kubernetes", &path("kubernetes"), "1.36"]);
    let manifests: Vec<Value> = printed.split("\n---\n").map(yaml).collect();
    let of_kind = |kind: &str| manifests.iter().filter(|manifest| manifest["kind"] == kind).collect::<Vec<_>>();
    for (kind, count) in [
        ("Namespace", 1),
        ("ConfigMap", 2),
        ("Service", 2),
        ("Deployment", 1),
        ("StatefulSet", 1),
        ("PodDisruptionBudget", 2),
    ] {
        assert_eq!(of_kind(kind).len(), count, "{kind}");
    }
    for (kind, file, service) in [("Deployment", "front.yaml", "front"), ("StatefulSet", "sampling.yaml", "sampling")] {
        let workload = of_kind(kind)[0];
        let pod = &workload["spec"]["template"];
        let labels = &pod["metadata"]["labels"];
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["image"], format!("otel/opentelemetry-collector-contrib:{}", version("COLLECTOR")));
        for probe in ["readinessProbe", "livenessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "health", "{probe}");
        }
        assert!(container["resources"]["limits"]["memory"].is_string());

        // The same file that the tests run, mounted at the path that the container reads.
        let map = of_kind("ConfigMap").into_iter().find(|map| !map["data"][file].is_null()).unwrap();
        assert_eq!(map["data"][file], fs::read_to_string(shipped("collector").join(file)).unwrap());
        assert_eq!(pod["spec"]["volumes"][0]["configMap"]["name"], map["metadata"]["name"]);
        assert_eq!(
            container["args"][0],
            format!("--config={}/{file}", container["volumeMounts"][0]["mountPath"].as_str().unwrap())
        );

        // Everything that selects pods selects these.
        let service = of_kind("Service").into_iter().find(|one| one["metadata"]["name"] == service).unwrap();
        assert_eq!(&service["spec"]["selector"], labels);
        assert_eq!(&workload["spec"]["selector"]["matchLabels"], labels);
        let named = |budget: &&Value| budget["metadata"]["name"] == workload["metadata"]["name"];
        let budget = of_kind("PodDisruptionBudget").into_iter().find(named).unwrap();
        assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
        for port in service["spec"]["ports"].as_array().unwrap() {
            let ports = container["ports"].as_array().unwrap();
            assert!(
                ports
                    .iter()
                    .any(|of_pod| of_pod["name"] == port["targetPort"] && of_pod["containerPort"] == port["port"])
            );
        }
    }
    // The name must resolve to one address for each pod, or the front tier sees a single back end.
    let sampling = of_kind("Service").into_iter().find(|one| one["metadata"]["name"] == "sampling").unwrap();
    assert_eq!(sampling["spec"]["clusterIP"], "None");
}

#[test]
fn kubernetes_does_not_take_just_anything() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = fs::read_to_string(shipped("kubernetes/front.yaml")).unwrap();
    let wrong = manifest.replacen("minAvailable: 1", "minimumAvailable: 1", 1);
    assert_ne!(manifest, wrong);
    fs::write(folder.path().join("front.yaml"), wrong).unwrap();
    fs::write(folder.path().join("kustomization.yaml"), "resources: [front.yaml]\n").unwrap();
    let output = script("manifests", &["kubernetes", folder.path().to_str().unwrap(), "1.36"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("minimumAvailable"), "{said}");
}

#[test]
fn prometheus_takes_its_file() {
    run("prometheus", &["check", &path("prometheus/prometheus.yaml")]);
}

#[test]
fn the_dashboard_asks_sources_that_are_provisioned() {
    let sources = yaml(&fs::read_to_string(shipped("grafana/provisioning/datasources/datasources.yaml")).unwrap());
    let provisioned = |uid: &str| sources["datasources"].as_array().unwrap().iter().any(|source| source["uid"] == uid);
    let dashboard: Value = serde_json::from_slice(&fs::read(shipped("grafana/dashboard.json")).unwrap()).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let source = variables.iter().find(|variable| variable["name"] == "datasource").unwrap();
    assert!(provisioned(source["current"]["value"].as_str().unwrap()));
    for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
    }
}

#[test]
fn compose_takes_its_file() {
    let model: Value = serde_json::from_str(&run("manifests", &["compose", &path("compose.yaml")])).unwrap();
    let services = model["services"].as_object().unwrap();
    let in_profile = |profile: &str| {
        let is_in = move |service: &Value| match service["profiles"].as_array() {
            Some(profiles) => profiles.iter().any(|one| one == profile),
            None => true,
        };
        services.iter().filter(move |(_, service)| is_in(service)).map(|(name, _)| name.as_str()).collect::<Vec<_>>()
    };
    for (profile, scheme) in
        [("memory", "memory"), ("kafka", "kafka"), ("rabbitmq", "amqp"), ("nats", "nats"), ("redis", "redis")]
    {
        let running = in_profile(profile);
        let orders: Vec<_> = running.iter().filter(|name| name.starts_with("orders-")).collect();
        let [orders] = orders[..] else { panic!("{profile}: one order system, not {orders:?}") };
        let command = services[*orders]["command"].as_array().unwrap();
        let url = command[1].as_str().unwrap();
        assert!(url.starts_with(&format!("{scheme}://")), "{profile}: {url}");
        assert!(profile == "memory" || url.contains(&format!("{profile}:")), "{profile}: {url}");
        for name in ["front", "sampling", "tempo", "jaeger", "prometheus", "grafana"] {
            assert!(running.contains(&name), "{profile}: {name}");
        }
        // A service only depends on services that run.
        for name in &running {
            let waits_for = services[*name]["depends_on"].as_object();
            for other in waits_for.into_iter().flatten().map(|(other, _)| other.as_str()) {
                assert!(running.contains(&other), "{profile}: {name} waits for {other}");
            }
        }
    }
    let (minor, jaeger) = (version("JAEGER"), services["jaeger"]["image"].as_str().unwrap());
    let minor: u32 = minor.split('.').nth(1).unwrap().parse().unwrap();
    assert_eq!(jaeger, format!("jaegertracing/jaeger:2.{}.0", minor - 63), "the one that the tests run");
    for tier in ["front", "sampling"] {
        assert_eq!(services[tier]["image"], format!("otel/opentelemetry-collector-contrib:{}", version("COLLECTOR")));
    }
    assert_eq!(services["sampling"]["deploy"]["replicas"], 2);
    let mounts = services.values().filter_map(|service| service["volumes"].as_array()).flatten();
    for mount in mounts.filter(|mount| mount["type"] == "bind") {
        let source = mount["source"].as_str().unwrap();
        assert!(Path::new(source).exists(), "there is no {source}");
    }
}

#[test]
fn compose_does_not_take_just_anything() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("compose.yaml");
    let text = fs::read_to_string(shipped("compose.yaml")).unwrap();
    let wrong = text.replacen("healthcheck:", "healthchecks:", 1);
    assert_ne!(text, wrong);
    fs::write(&file, wrong).unwrap();
    let output = script("manifests", &["compose", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("healthchecks"), "{said}");
}

//! The invariants of ARCHITECTURE.md that can be read off the source tree and the dependency graph.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

mod language;
mod layers;
mod modules;
mod options;
mod servers;

const CLIENTS: [&str; 4] = ["rdkafka", "lapin", "async_nats", "redis::"];
/// A file of more lines than this is more than one subject.
const MAX_LINES: usize = 500;

/// A source file, path relative to the root, with its code lines (comments left out) and their
/// numbers.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        numbered.filter(|(_, line)| !line.starts_with("//"))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no source below {folder}");
    found
}

fn library() -> Vec<Source> {
    sources("src").into_iter().chain(sources("adapters")).collect()
}

/// Fails with every line of code for which `offends` holds.
fn forbid(files: &[Source], rule: &str, offends: impl Fn(&str, &str) -> bool) {
    let offences: Vec<String> = files
        .iter()
        .flat_map(|file| file.code().map(move |(number, line)| (file, number, line)))
        .filter(|(file, _, line)| offends(&file.path, line))
        .map(|(file, number, line)| format!("{}:{number}: {line}", file.path))
        .collect();
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

#[test]
fn adapters_know_no_telemetry() {
    let adapters = sources("adapters");
    let offenders: Vec<&str> =
        adapters.iter().filter(|file| file.text.contains("opentelemetry")).map(|file| &*file.path).collect();
    assert!(offenders.is_empty(), "nothing under adapters/ names opentelemetry, not even a comment: {offenders:?}");
}

#[test]
fn adapters_are_named_at_the_url_dispatch_only() {
    forbid(
        &sources("src"),
        "only src/connect.rs and src/lib.rs name an adapter, and src/testing the embedded one",
        |path, line| {
            // Unit tests are applications of a kind, too.
            let may = path.starts_with("src/testing/") || path.ends_with("/tests.rs");
            let embedded = may && line.contains("adapters::memory::");
            line.contains("adapters::") && path != "src/connect.rs" && path != "src/lib.rs" && !embedded
        },
    );
    forbid(&sources("src"), "no client crate is named outside adapters/", |_, line| {
        CLIENTS.iter().any(|client| line.contains(client)) && !line.contains("::redis::")
    });
}

#[test]
fn adapters_do_not_know_each_other() {
    let names = ["memory", "kafka", "amqp", "nats", "redis"];
    forbid(&sources("adapters"), "an adapter does not use another", |path, line| {
        let own = path.split('/').nth(1).unwrap_or_default();
        names.iter().any(|name| *name != own && line.contains(&format!("adapters::{name}")))
    });
}

#[test]
fn features_are_selected_in_few_places() {
    let places = ["src/lib.rs", "src/context/mod.rs", "src/connect.rs", "src/driver/tls/mod.rs", "adapters/mod.rs"];
    forbid(
        &library(),
        "cfg(feature) only at the module lists, the URL dispatch and the choice of TLS",
        |path, line| {
            let selects =
                ["cfg(feature", "cfg_attr(feature", "cfg!(feature", "any(feature", "all(feature", "not(feature"];
            !places.contains(&path) && selects.iter().any(|cfg| line.contains(cfg))
        },
    );
}

#[test]
fn client_types_are_public_in_escape_hatches_only() {
    forbid(&sources("adapters"), "no client type in the public interface", |_, line| {
        let public = line.starts_with("pub fn") || line.starts_with("pub async fn") || line.starts_with("pub type");
        let hatch = line.contains("fn from_client") || line.contains("fn as_client");
        public && !hatch && CLIENTS.iter().any(|client| line.contains(client))
    });
    forbid(&sources("adapters"), "no client type is exported", |_, line| {
        line.starts_with("pub use") && CLIENTS.iter().any(|client| line.contains(client))
    });
}

#[test]
fn unsafe_code_is_in_one_module() {
    forbid(&library(), "unsafe code stands in adapters/kafka/connection/native.rs only", |path, line| {
        path != "adapters/kafka/connection/native.rs"
            && (line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl"))
    });
}

#[test]
fn nothing_is_unbounded() {
    forbid(&library(), "every queue has a bound", |_, line| line.contains("unbounded"));
}

#[test]
fn contexts_are_read_from_messages_and_from_one_ambient_place() {
    forbid(&sources("src"), "the ambient context is asked for in src/context/ambient*.rs only", |path, line| {
        // The conformance kit stands in for an application, which asks as it likes.
        let asks = path.starts_with("src/context/ambient") || path.starts_with("src/conformance");
        !asks && (line.contains("Context::current()") || line.contains("map_current"))
    });
    forbid(&sources("src"), "extraction starts from an empty context", |path, line| {
        // The one way of the propagator that starts from the current context; the codec has to
        // offer it, nobody calls it.
        !path.starts_with("src/context/w3c") && line.contains("propagator.extract(")
    });
}

#[test]
fn every_adapter_answers_the_same_questions() {
    for name in ["memory", "kafka", "amqp", "nats", "redis"] {
        let text = fs::read_to_string(root().join(format!("adapters/{name}/mod.rs"))).unwrap();
        let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("//! # ")).collect();
        assert_eq!(
            headings,
            ["URLs", "Delivery semantics", "Headers", "Escape hatch", "Permissions and settings at the server"],
            "adapters/{name}/mod.rs"
        );
    }
}

#[test]
fn files_are_one_subject() {
    let long: Vec<String> = library()
        .iter()
        .map(|file| (file.text.lines().count(), &file.path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn the_default_tree_is_pure_rust_without_tls() {
    for features in ["", "redis", "amqp", "tracing"] {
        let tree =
            cargo(&["tree", "--edges", "normal", "--prefix", "none", "--format", "{lib}", "--features", features]);
        let native = |name: &str| {
            (name.ends_with("_sys") && name != "linux_raw_sys")
                || ["ring", "openssl", "rustls", "native_tls"].contains(&name)
        };
        let found: BTreeSet<&str> = tree.lines().map(str::trim).filter(|name| native(name)).collect();
        assert!(found.is_empty(), "features '{features}' bring native code or TLS: {found:?}");
    }
    let kafka = cargo(&["tree", "--edges", "normal", "--prefix", "none", "--format", "{lib}", "--features", "kafka"]);
    assert!(kafka.contains("rdkafka_sys"), "the check sees native libraries where there are some");
}

/// `rust-version` is the highest of the dependencies', no lower and no higher.
#[test]
fn the_stated_rust_version_is_that_of_the_dependencies() {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--all-features"])).unwrap();
    let packages: BTreeMap<&str, &Value> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package))
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let own = metadata["resolve"]["root"].as_str().unwrap();
    let (mut seen, mut queue) = (BTreeSet::new(), vec![own]);
    while let Some(id) = queue.pop() {
        if seen.insert(id) {
            let needed = nodes[id]["deps"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dep| dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] != "dev"));
            queue.extend(needed.map(|dep| dep["pkg"].as_str().unwrap()));
        }
    }
    let version = |id: &str| packages[id]["rust_version"].as_str().map(parse_version);
    let highest = seen.iter().filter(|id| **id != own).filter_map(|id| version(id).map(|v| (v, *id))).max().unwrap();
    assert_eq!(version(own).unwrap(), highest.0, "rust-version in Cargo.toml against {}", highest.1);
}

fn parse_version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap_or(0))
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

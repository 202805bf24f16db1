//! Tests that the registry in `docs/registry`, the tables of the kit and the names in the sources
//! agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value as Any;

use super::attributes::{ATTRIBUTES, Attribute, is_governed};
use super::metrics::METRICS;
use crate::conformance::conventions::Metric;
use crate::names;
use crate::names::SCHEMA_URL;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    name: String,
    #[expect(dead_code, reason = "it has to be there")]
    description: String,
    schema_url: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dependency {
    schema_url: String,
    registry_path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definitions {
    file_format: String,
    #[serde(default)]
    attributes: Vec<DefinedAttribute>,
    #[serde(default)]
    metrics: Vec<DefinedMetric>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DefinedAttribute {
    key: String,
    #[serde(rename = "type")]
    kind: Kind,
    stability: String,
    brief: String,
    #[serde(default)]
    #[expect(dead_code, reason = "it may be there")]
    note: String,
    examples: Vec<Any>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Kind {
    Simple(String),
    Members { members: Vec<Member> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    id: String,
    value: String,
    brief: String,
    stability: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DefinedMetric {
    name: String,
    instrument: String,
    unit: String,
    stability: String,
    brief: String,
    #[serde(default)]
    #[expect(dead_code, reason = "it may be there")]
    note: String,
    attributes: Vec<Reference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    #[serde(rename = "ref")]
    name: String,
    #[serde(default)]
    requirement_level: Any,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read<T: serde::de::DeserializeOwned>(file: &str) -> T {
    let text = fs::read_to_string(root().join("docs/registry").join(file)).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn definitions() -> Definitions {
    let (attributes, metrics) = (read::<Definitions>("attributes.yaml"), read::<Definitions>("metrics.yaml"));
    for file in [&attributes, &metrics] {
        assert_eq!(file.file_format, "definition/2");
    }
    Definitions { metrics: metrics.metrics, ..attributes }
}

#[test]
fn the_registry_builds_on_the_conventions_that_spans_follow() {
    let manifest: Manifest = read("manifest.yaml");
    assert_eq!(manifest.name, env!("CARGO_PKG_NAME"));
    assert!(manifest.schema_url.ends_with(env!("CARGO_PKG_VERSION")), "{}", manifest.schema_url);
    let [conventions] = &manifest.dependencies[..] else { panic!("one dependency") };
    assert_eq!(conventions.schema_url, SCHEMA_URL);
    let version = SCHEMA_URL.rsplit('/').next().unwrap();
    assert!(conventions.registry_path.contains(&format!("@v{version}[model]")), "{}", conventions.registry_path);
}

#[test]
fn the_registry_has_our_attributes_and_no_other() {
    let defined = definitions().attributes;
    let names: Vec<&str> = defined.iter().map(|attribute| attribute.key.as_str()).collect();
    let ours: Vec<&str> =
        ATTRIBUTES.iter().filter(|attribute| attribute.ours).map(|attribute| attribute.name).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>(), ours.iter().collect());
    assert_eq!(names.len(), ours.len(), "each is defined once");
    for attribute in &defined {
        let table = Attribute::find(&attribute.key).unwrap();
        match &attribute.kind {
            Kind::Simple(kind) => {
                assert_eq!(kind, table.kind.as_str(), "{}", attribute.key);
                // A flag is set only if it is true.
                assert!(table.values.is_empty() || table.values == ["true"], "{}", attribute.key);
            }
            Kind::Members { members } => {
                let values: Vec<&str> = members.iter().map(|member| member.value.as_str()).collect();
                assert_eq!(values, table.values, "{}", attribute.key);
                assert!(members.iter().all(|member| !member.id.is_empty() && member.brief.ends_with('.')));
                assert!(members.iter().all(|member| member.stability == "development"));
            }
        }
        assert!(attribute.brief.ends_with('.') && !attribute.examples.is_empty(), "{}", attribute.key);
        assert_eq!(attribute.stability, "development", "{}", attribute.key);
    }
}

#[test]
fn the_registry_has_our_metrics_and_no_other() {
    let defined = definitions().metrics;
    let ours: BTreeMap<&str, &Metric> =
        METRICS.iter().filter(|metric| metric.ours).map(|metric| (metric.facts.name, metric)).collect();
    assert_eq!(
        defined.iter().map(|metric| metric.name.as_str()).collect::<BTreeSet<_>>(),
        ours.keys().copied().collect()
    );
    assert_eq!(defined.len(), ours.len(), "each is defined once");
    for metric in &defined {
        let table = ours[metric.name.as_str()];
        assert_eq!(
            (metric.instrument.as_str(), metric.unit.as_str()),
            (table.facts.instrument, table.facts.unit),
            "{}",
            metric.name
        );
        assert!(metric.brief.ends_with('.') && metric.stability == "development", "{}", metric.name);
        let references: BTreeSet<&str> = metric.attributes.iter().map(|reference| reference.name.as_str()).collect();
        let known: BTreeSet<&str> = table.attributes().map(|(name, _)| *name).collect();
        assert_eq!(references, known, "{}", metric.name);
        for reference in &metric.attributes {
            let required = table.attributes().any(|(name, required)| *name == reference.name && *required);
            assert_eq!(reference.requirement_level == "required", required, "{} of {}", reference.name, metric.name);
        }
    }
}

/// Returns the names of attributes and metrics in a source file, excluding comments.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split('"').skip(1).step_by(2)).filter(|name| {
        is_governed(name)
            && name.split('.').all(|part| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
    })
}

fn sources() -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join("src"), root().join("adapters")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn names_are_written_in_one_file() {
    // The reader of exported spans and the command use the names of other exporters, too, and the
    // kit lists values.
    let elsewhere = ["src/conformance", "src/verify", "src/bin", "src/names.rs"].map(|place| root().join(place));
    for (path, text) in sources() {
        if !elsewhere.iter().any(|place| path.starts_with(place)) {
            let literals: Vec<&str> = names_in(&text).collect();
            assert!(literals.is_empty(), "{} writes {literals:?}: use the constants of src/names.rs", path.display());
        }
    }
}

#[test]
fn the_tables_have_the_names_of_the_library_and_no_other_of_ours() {
    let text = fs::read_to_string(root().join("src/names.rs")).unwrap();
    let written: BTreeSet<&str> = names_in(&text).collect();
    for name in &written {
        let is_event = *name == names::event::PROCESS_EXCEPTION;
        let is_metric = METRICS.iter().any(|metric| metric.facts.name == *name);
        let known = Attribute::find(name).is_some() || is_metric || is_event;
        assert!(known, "{name} is in src/names.rs and in no table");
    }
    for attribute in ATTRIBUTES.iter().filter(|attribute| attribute.ours) {
        assert!(written.contains(attribute.name), "{} is in the tables and not in src/names.rs", attribute.name);
    }
    let metrics: Vec<&str> = METRICS.iter().map(|metric| metric.facts.name).collect();
    assert_eq!(metrics, names::metric::ALL.map(|metric| metric.name));
}

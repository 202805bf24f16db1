//! The direction of imports: between the folders of `src`, and between the files of each folder.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::{Import, Name, imports};

/// The folders and files of `src`, lowest first. A module imports from its own folder and from
/// lower rows only.
const LAYERS: [&[&str]; 8] = [
    &["names", "error", "headers", "sync"],
    &["context"],
    &["message"],
    &["driver"],
    &["telemetry"],
    &["broker"],
    &["runtime", "connect"],
    &["otlp", "testing", "conformance"],
];

/// Modules beside the layers, with all that they import.
const BESIDE: [(&str, &[&str]); 2] =
    [("verify", &["names"]), ("adapters", &["names", "error", "headers", "sync", "context", "message", "driver"])];

/// The modules beside the layers that these may import: the dispatch names the adapters, tests run
/// on the embedded broker, and what judges exported spans needs their reader.
const REACHES: [(&str, &[&str]); 4] = [
    ("connect", &["adapters"]),
    ("testing", &["adapters", "verify"]),
    ("conformance", &["adapters", "verify"]),
    ("otlp", &["verify"]),
];

/// Files of one folder that import each other, and the reason.
const CIRCLES: [(&str, &[&str], &str); 2] = [
    ("runtime/job", &["invalid", "reference"], "an error that names the limits of its parser"),
    ("verify/page", &["row", "section"], "a section writes its rows, and a row asks its section for details"),
];

fn allowed(from: &str) -> BTreeSet<&'static str> {
    if let Some((_, lower)) = BESIDE.iter().find(|(name, _)| *name == from) {
        return lower.iter().copied().collect();
    }
    let layer = LAYERS.iter().position(|layer| layer.contains(&from));
    let layer =
        layer.unwrap_or_else(|| panic!("src/{from} is in no layer: add it to the table and to ARCHITECTURE.md"));
    let reached = REACHES.iter().filter(|(name, _)| *name == from).flat_map(|(_, more)| more.iter());
    LAYERS[..layer].iter().flat_map(|layer| layer.iter()).chain(reached).copied().collect()
}

#[test]
fn imports_go_down_the_layers() {
    let offences: BTreeSet<String> = imports()
        .iter()
        .filter(|import| !import.from.is_empty() && import.from.first() != import.to.first())
        .filter(|import| {
            let to = import.to.first().map_or("the root", String::as_str);
            !allowed(&import.from[0]).contains(to)
        })
        .map(|import| format!("{} imports {}", import.file, import.to.join("::")))
        .collect();
    assert!(offences.is_empty(), "imports that go up:\n{}", offences.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn files_of_one_folder_do_not_import_each_other_in_circles() {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for (folder, edges) in edges_by_folder(&imports()) {
        found.extend(circles(&edges).into_iter().map(|circle| (folder.join("/"), circle)));
    }
    let listed = |folder: &str, circle: &[String]| {
        CIRCLES.iter().any(|(known, files, _)| *known == folder && circle.iter().eq(files.iter()))
    };
    let unlisted: Vec<String> = found
        .iter()
        .filter(|(folder, circle)| !listed(folder, circle))
        .map(|(folder, circle)| format!("{folder}: {}", circle.join(" <-> ")))
        .collect();
    assert!(unlisted.is_empty(), "files that import each other:\n{}", unlisted.join("\n"));
    assert_eq!(found.len(), CIRCLES.len(), "a listed circle is gone: remove it from the list");
}

type Edges = BTreeMap<String, BTreeSet<String>>;

/// The imports between the entries of each folder: its files, and the folders below it. The
/// `mod.rs` is no entry: it stands for the folder, so that it knows all of them, and they may know
/// it.
fn edges_by_folder(imports: &[Import]) -> BTreeMap<Name, Edges> {
    let mut folders: BTreeMap<Name, Edges> = BTreeMap::new();
    for Import { from, to, .. } in imports {
        let shared = from.iter().zip(to).take_while(|(one, other)| one == other).count();
        if shared == 0 {
            continue;
        }
        if let (Some(one), Some(other)) = (from.get(shared), to.get(shared)) {
            let edges = folders.entry(from[..shared].to_vec()).or_default();
            edges.entry(one.clone()).or_default().insert(other.clone());
        }
    }
    folders
}

/// The sets of entries that reach each other.
fn circles(edges: &Edges) -> Vec<Vec<String>> {
    let reachable = |from: &String| {
        let (mut seen, mut queue) = (BTreeSet::new(), vec![from]);
        while let Some(next) = queue.pop() {
            for to in edges.get(next).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    queue.push(to);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = edges.keys().map(|entry| (entry, reachable(entry))).collect();
    let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
    for (entry, all) in &reached {
        let circle: Vec<String> =
            all.iter().filter(|other| reached.get(other).is_some_and(|back| back.contains(*entry))).cloned().collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

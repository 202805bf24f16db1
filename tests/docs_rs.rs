//! The documentation as docs.rs builds it: from the packaged crate, with the features of the
//! metadata and the labels of `--cfg docsrs`. It builds without warnings, and no link in it is
//! dead.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Packages the crate below `target`, and returns the folder with its unpacked files.
fn package(target: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let arguments = ["package", "--quiet", "--no-verify", "--allow-dirty", "--target-dir"];
    run(Command::new(env!("CARGO")).args(arguments).arg(target).current_dir(root));
    let name = concat!(env!("CARGO_PKG_NAME"), "-", env!("CARGO_PKG_VERSION"));
    let file = target.join("package").join(name).with_extension("0.crate");
    run(Command::new("tar").arg("-xzf").arg(file).current_dir(target.join("package")));
    target.join("package").join(name)
}

/// The features that the package's own metadata names for docs.rs.
fn features(package: &Path) -> String {
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let metadata: Value =
        serde_json::from_str(&run(Command::new(env!("CARGO")).args(arguments).current_dir(package))).unwrap();
    let docs = &metadata["packages"][0]["metadata"]["docs"]["rs"];
    let features = docs["features"].as_array().expect("[package.metadata.docs.rs] has features");
    features.iter().map(|feature| feature.as_str().unwrap()).collect::<Vec<_>>().join(",")
}

/// The folder in which this test was built, which has most of the dependencies already.
fn target() -> PathBuf {
    let built = std::env::current_exe().unwrap();
    built.ancestors().nth(3).unwrap().to_path_buf()
}

#[test]
fn builds_from_the_package_without_dead_links() {
    let (scratch, target) = (tempfile::tempdir().unwrap(), target());
    let package = package(scratch.path());
    // Pages of an earlier build would hide dead links.
    let docs = target.join("doc");
    if docs.exists() {
        fs::remove_dir_all(&docs).unwrap();
    }
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["doc", "--quiet", "--no-deps", "--lib", "--features", &features(&package), "--target-dir"])
        .arg(&target)
        // The labels of features need an unstable feature of rustdoc.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTDOCFLAGS", "--cfg docsrs --deny warnings")
        .current_dir(&package);
    run(&mut command);

    // Not rustdoc's own pages beside them, whose links it completes when it builds a site.
    let pages = pages(&docs.join("traced_broker"));
    let front = &pages[&docs.join("traced_broker/index.html")];
    assert!(front.contains("Available on "), "modules of features are labelled");
    let dead = dead_links(&pages);
    assert!(dead.is_empty(), "dead links:\n{}", dead.into_iter().collect::<Vec<_>>().join("\n"));
}

fn pages(folder: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "html") {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path, text);
            }
        }
    }
    found
}

/// The links of all pages that lead to no file, or to no place in one.
fn dead_links(pages: &BTreeMap<PathBuf, String>) -> BTreeSet<String> {
    let mut dead = BTreeSet::new();
    for (page, text) in pages {
        for link in attribute_values(text, "href").chain(attribute_values(text, "src")) {
            if link.contains("://") || link.starts_with("data:") || link.starts_with("javascript:") {
                continue;
            }
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            // The documentation of foreign traits is shown with our types, and its links name items
            // of crates that are not documented here. rustdoc itself refuses such links of ours.
            if !file.is_empty() && !file.contains(['.', '/']) || file.contains("::") {
                continue;
            }
            // Lists of implementors, which rustdoc writes only if there are some elsewhere.
            if file.ends_with(".js") {
                continue;
            }
            let file = file.split('?').next().unwrap_or_default();
            let target = if file.is_empty() { page.clone() } else { normal(&page.parent().unwrap().join(file)) };
            // Lines of a source are marked by a script.
            let is_source = target.components().any(|part| part.as_os_str() == "src");
            let is_there = match pages.get(&target) {
                Some(text) => place.is_empty() || is_source || attribute_values(text, "id").any(|id| id == place),
                None => target.exists() && target.is_file(),
            };
            if !is_there {
                dead.insert(format!("{} -> {link}", page.display()));
            }
        }
    }
    dead
}

fn attribute_values<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let marker = format!(" {name}=\"");
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(&marker)? + marker.len();
        let value = &rest[start..];
        let end = value.find('"')?;
        rest = &value[end..];
        Some(&value[..end])
    })
}

/// The path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut parts = Vec::new();
    for part in path.components() {
        if part.as_os_str() == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.into_iter().collect()
}

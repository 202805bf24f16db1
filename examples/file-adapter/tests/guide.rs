//! The guide shows only code of this adapter.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

/// Returns the text without the indentation of its lines.
fn flat(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_excerpt_is_in_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "tests"].map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let mut sources: Vec<_> = folders.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    sources.push(root.join("Cargo.toml"));
    let sources: Vec<String> = sources.iter().map(|path| flat(&fs::read_to_string(path).unwrap())).collect();

    let guide = fs::read_to_string(root.join("../../docs/write-an-adapter.md")).unwrap();
    let mut excerpts = 0;
    for block in guide.split("\n```rust\n").skip(1).chain(guide.split("\n```toml\n").skip(1)) {
        let (block, _) = block.split_once("\n```").unwrap();
        // Omissions are marked.
        for excerpt in block.split("…").map(|excerpt| flat(excerpt.trim_end_matches(['/', '#', ' ']))) {
            assert!(
                sources.iter().any(|source| source.contains(&excerpt)),
                "no source of the adapter holds:\n{excerpt}"
            );
            excerpts += 1;
        }
    }
    assert!(excerpts > 15, "the guide shows code: {excerpts} excerpts");
}

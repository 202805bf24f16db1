//! Pictures of captured traces, compared with those that the guide shows.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use traced_broker::testing::TestBed;
use traced_broker::verify::{Picture, Trace, TraceReport, check};

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures")
}

/// Asserts that all captured traces are whole, draws them, and compares them with the picture of
/// that name.
#[track_caller]
pub(crate) fn hold(bed: &TestBed, name: &str, title: &str) {
    bed.capture().assert_whole();
    compare(bed, name, title);
}

/// Compares captured traces that are broken on purpose; returns the findings.
#[track_caller]
pub(crate) fn hold_broken(bed: &TestBed, name: &str, title: &str) -> TraceReport {
    compare(bed, name, title)
}

#[track_caller]
fn compare(bed: &TestBed, name: &str, title: &str) -> TraceReport {
    let traces = bed.capture().traces();
    let report = check(&traces);
    let mut all = traces.iter();
    let picture = Picture::new(all.next().unwrap()).within(&traces).report(&report).title(title);
    let drawn = all.fold(picture, |picture: Picture<'_>, trace: &Trace| picture.and(trace)).to_string();
    let path = folder().join(format!("{name}.svg"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::create_dir_all(folder()).unwrap();
        fs::write(&path, &drawn).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let (now, then) = (structure(&drawn), structure(&kept));
    assert!(!now.is_empty(), "nothing was drawn");
    assert_eq!(now, then, "{} shows something else; UPDATE_SNAPSHOTS=1 draws it anew", path.display());
    report
}

/// Returns the structure of a picture, with spans named by their order in it: `2 send orders (api)
/// in 0, child of 1, links 5`.
pub(crate) fn structure(svg: &str) -> Vec<String> {
    let groups: Vec<&str> = svg.split("<g ").skip(1).map(|group| group.split_once('>').unwrap().0).collect();
    let number: HashMap<String, usize> =
        groups.iter().enumerate().map(|(position, group)| (attribute(group, "data-id"), position)).collect();
    let mut traces: Vec<String> = Vec::new();
    let describe = |(position, group): (usize, &&str)| {
        let trace = attribute(group, "data-trace");
        if !traces.contains(&trace) {
            traces.push(trace.clone());
        }
        let known = |id: &str| number.get(id).map_or_else(|| "unknown".to_owned(), ToString::to_string);
        let parent = attribute(group, "data-parent");
        let parent = if parent.is_empty() { "none".to_owned() } else { known(&parent) };
        let links = attribute(group, "data-links");
        let links: Vec<String> = links.split_whitespace().map(|link| known(link.split_once('-').unwrap().1)).collect();
        format!(
            "{position} {} ({}) in trace {}, child of {parent}, links {links:?}",
            attribute(group, "data-span"),
            attribute(group, "data-service"),
            traces.iter().position(|known| *known == trace).unwrap()
        )
    };
    groups.iter().enumerate().map(describe).collect()
}

fn attribute(group: &str, name: &str) -> String {
    let (_, rest) = group.split_once(&format!("{name}=\"")).unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

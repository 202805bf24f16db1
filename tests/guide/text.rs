//! The text of the guide and its pictures belong together.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::picture::{folder, structure};

fn guide() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/how-a-trace-crosses-a-queue.md");
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_guide_shows_every_picture_and_no_other() {
    let guide = guide();
    let shown: BTreeSet<String> =
        guide.split("](pictures/").skip(1).map(|rest| rest.split_once(')').unwrap().0.to_owned()).collect();
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // Pictures of the page are shown elsewhere.
    assert_eq!(shown, files.filter(|name| name.ends_with(".svg")).collect());
}

/// The comparison sees only names, parents and links.
#[test]
fn the_structure_of_a_picture_is_names_parents_and_links() {
    let path = folder().join("link.svg");
    let svg = fs::read_to_string(path).unwrap();
    let own = structure(&svg);
    assert!(
        own.iter().any(|line| line == "2 process orders (worker) in trace 1, child of none, links [\"1\"]"),
        "{own:?}"
    );
    let links = |svg: &str| svg.replacen("data-links=\"", "data-links=\"0-0 ", 1);
    assert_ne!(structure(&links(&svg)), own, "a link more is seen");
    let renamed = svg.replacen("data-span=\"send", "data-span=\"sent", 1);
    assert_ne!(structure(&renamed), own, "a name is seen");
    let first = svg.split_once("data-id=\"").unwrap().1.split_once('"').unwrap().0;
    assert_eq!(structure(&svg.replace(first, "ffffffffffffffff")), own, "an id is not");
    let orphan = svg.replacen(&format!("data-parent=\"{first}\""), "data-parent=\"\"", 1);
    assert_ne!(structure(&orphan), own, "a parent is seen");
}

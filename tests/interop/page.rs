//! The page `docs/compatibility.md` states exactly the measured results, and shows code that these
//! tests run.

use std::fs;
use std::path::{Path, PathBuf};

use crate::combinations::ALL;
use crate::program::sources;
use crate::support::Kind;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md");
    fs::read_to_string(path).unwrap()
}

/// Returns the cells of each row of the result tables.
fn rows(page: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let is_row = |line: &&str| line.starts_with('|') && line.contains(" → ");
    page.lines().filter(is_row).map(cells).collect()
}

#[test]
fn the_table_has_every_combination_as_measured_and_no_other() {
    let page = page();
    let mut told = rows(&page);
    let mut workarounds = Vec::new();
    for row in &mut told {
        assert_eq!(row.len(), 6, "broker, library, direction, verdict, what to do, wire: {row:?}");
        let workaround = row.remove(4);
        workarounds.push((row[3].clone(), workaround));
    }
    let measured: Vec<Vec<String>> = ALL
        .iter()
        .flat_map(|(library, _)| library.measured().map(move |(direction, measured)| (library, direction, measured)))
        .map(|(library, direction, measured)| {
            let (broker, title) = (name(library.broker).to_owned(), library.title.to_owned());
            vec![broker, title, direction.as_str().to_owned(), measured.verdict(), measured.wire()]
        })
        .collect();
    let lines = |rows: &[Vec<String>]| rows.iter().map(|row| row.join(" | ")).collect::<Vec<_>>().join("\n");
    assert_eq!(lines(&told), lines(&measured), "on the page; measured");
    for (verdict, workaround) in workarounds {
        assert_eq!(workaround.is_empty(), verdict == "yes", "what to do about `{verdict}`: `{workaround}`");
    }
}

/// Returns the broker's name on the page.
fn name(broker: Kind) -> &'static str {
    match broker {
        Kind::Kafka => "Kafka",
        Kind::RabbitMq => "RabbitMQ",
        Kind::Nats => "NATS",
        Kind::Redis => "Redis",
        other => panic!("no library is measured on {other:?}"),
    }
}

/// Every stated direction is tested, and every library that receives is also tested in a chain.
#[test]
fn every_direction_is_tested() {
    for (library, tested) in ALL {
        assert_eq!(*tested, library.directions(), "{}", library.title);
    }
}

/// Every code block is, line by line and except for its indentation, part of a program that the
/// tests run.
#[test]
fn the_code_is_that_of_the_programs() {
    let page = page();
    let mut shown = 0;
    for (language, ending) in [("go", "go"), ("python", "py"), ("java", "java")] {
        let programs: Vec<String> = files(&sources().join(language), ending).iter().map(|path| trimmed(path)).collect();
        for block in page.split(&format!("```{language}\n")).skip(1) {
            let block = block.split("```").next().unwrap();
            let lines: Vec<&str> = block.lines().map(str::trim).collect();
            let code = lines.join("\n");
            assert!(programs.iter().any(|program| program.contains(&code)), "not in a program:\n{block}");
            shown += 1;
        }
    }
    assert!(shown > 0, "the page shows no code");
}

/// The versions on the page are the installed versions.
#[test]
fn the_versions_are_those_of_the_programs() {
    let page = page();
    let read = |name: &str| fs::read_to_string(sources().join(name)).unwrap();
    let go = read("go/go.mod");
    let direct = go.split("require (").nth(1).unwrap().split(')').next().unwrap();
    let mut versions: Vec<(String, String)> = direct.trim().lines().map(|line| pair(line.trim(), " ")).collect();
    versions.extend(
        read("python/requirements.txt").lines().filter(|line| line.contains("==")).map(|line| pair(line, "==")),
    );
    let java = read("java/pom.xml");
    for dependency in java.split("<dependency>").skip(1) {
        versions.push((element(dependency, "artifactId"), element(dependency, "version")));
    }
    let listed: Vec<(String, String)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "))
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect();
    assert_eq!(listed, versions);
}

fn pair(line: &str, between: &str) -> (String, String) {
    let (name, version) = line.split_once(between).unwrap();
    (name.to_owned(), version.trim_start_matches('v').to_owned())
}

fn element(xml: &str, name: &str) -> String {
    let inner = xml.split(&format!("<{name}>")).nth(1).unwrap();
    inner.split('<').next().unwrap().to_owned()
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.extension().is_some_and(|found| found == ending)).collect()
}

fn trimmed(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join("\n")
}

//! The rules of CONTRIBUTING.md for comments and pages that a program can check.

use std::fs;

use crate::{Source, root, sources};

/// Words with which no doc comment begins: a question word begins a clause, not a description.
const QUESTIONS: [&str; 7] = ["What", "Who", "Whom", "Whose", "How", "Whether", "Where"];

/// Doc comments that begin with a question word all the same, with the reason.
const ALLOWED: [(&str, &str, &str); 0] = [];

/// The longest line of a comment or page, in characters.
const COLUMNS: usize = 100;

/// The largest number of words in the README, without its code.
const README_WORDS: usize = 900;

/// Folders with Rust sources.
const RUST: [&str; 6] = ["src", "adapters", "tests", "examples", "benches", "models"];

/// Folders with pages, beside the root.
const PAGES: [&str; 4] = ["", "docs", "deploy", "examples"];

fn rust() -> Vec<Source> {
    RUST.into_iter().flat_map(sources).filter(|file| !file.path.contains("/target/")).collect()
}

/// Every Markdown file, with its path relative to the root.
fn pages() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<_> = PAGES.into_iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let is_below = folder != *root() && path.file_name().is_none_or(|name| name != "target");
            if path.is_dir() && is_below {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.push(("src/front.md".to_owned(), fs::read_to_string(root().join("src/front.md")).unwrap()));
    found.sort();
    found.dedup();
    found
}

/// The first line of each doc comment, with its number.
fn beginnings(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let doc = |line: &str| ["///", "//!"].into_iter().find(|marker| line.trim_start().starts_with(marker));
    let mut before = None;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_first = doc(line).is_some() && doc(line) != before;
        before = doc(line);
        is_first.then(|| (index + 1, line.trim_start()[3..].trim()))
    })
}

#[test]
fn no_doc_comment_begins_with_a_question_word() {
    let mut offences = Vec::new();
    for file in rust() {
        for (number, line) in beginnings(&file.text) {
            let first = line.split(|letter: char| !letter.is_alphabetic()).next().unwrap_or_default();
            let is_allowed = ALLOWED.iter().any(|(path, text, _)| *path == file.path && *text == line);
            if QUESTIONS.contains(&first) && !is_allowed {
                offences.push(format!("{}:{number}: {line}", file.path));
            }
        }
    }
    assert!(offences.is_empty(), "begin with a verb or a noun:\n{}", offences.join("\n"));
}

/// Returns `true` for tables and lines with links, which cannot be broken.
fn may_be_long(line: &str) -> bool {
    let text = line.trim_start_matches(['/', '!', ' ']);
    text.starts_with('|') || text.contains("](") || text.contains("://") || text.starts_with('[')
}

#[test]
fn comments_and_pages_fit_their_columns() {
    let mut offences = Vec::new();
    let mut check = |path: &str, number: usize, line: &str| {
        if line.chars().count() > COLUMNS && !may_be_long(line) {
            offences.push(format!("{path}:{}: {line}", number + 1));
        }
    };
    for file in rust() {
        let comments = file.text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//"));
        comments.for_each(|(number, line)| check(&file.path, number, line));
    }
    for (path, text) in pages() {
        // Code has the columns that its formatter gives it.
        let mut is_code = false;
        for (number, line) in text.lines().enumerate() {
            is_code ^= line.trim_start().starts_with("```");
            if !is_code {
                check(&path, number, line);
            }
        }
    }
    assert!(offences.is_empty(), "more than {COLUMNS} columns:\n{}", offences.join("\n"));
}

#[test]
fn the_readme_is_short() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let prose = text.split("```").step_by(2);
    let words = prose.flat_map(str::split_whitespace).filter(|word| word.contains(char::is_alphanumeric)).count();
    assert!(words <= README_WORDS, "the README has {words} words without code: move some to a page below docs/");
}

#[test]
fn crate_documentation_has_no_relative_links() {
    // On docs.rs there are the pages of the crate only, and no file of the repository.
    let is_file = |target: &str| {
        let target = target.split(['#', ')', ' ']).next().unwrap_or_default();
        target.contains('.') && !target.contains("::") && !target.contains("//") && !target.contains("()")
    };
    let mut offences = Vec::new();
    let mut check = |path: &str, line: &str| {
        for target in line.split("](").skip(1).filter(|target| is_file(target)) {
            offences.push(format!("{path}: {}", target.split(')').next().unwrap_or_default()));
        }
    };
    for file in sources("src").into_iter().chain(sources("adapters")) {
        let docs =
            file.text.lines().map(str::trim_start).filter(|line| line.starts_with("///") || line.starts_with("//!"));
        docs.for_each(|line| check(&file.path, line));
    }
    let front = fs::read_to_string(root().join("src/front.md")).unwrap();
    front.lines().for_each(|line| check("src/front.md", line));
    assert!(offences.is_empty(), "links that break on docs.rs:\n{}", offences.join("\n"));
}

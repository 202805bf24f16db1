//! The result as a JUnit report for build servers, with a test case for each check.

use std::fmt::Write as _;

use traced_broker::verify::HumanDuration;

use super::outcome::Outcome;
use crate::error::CliError;

const SUITE: &str = "traced-broker verify";

/// A check and its failure.
struct Test {
    name: String,
    failure: Option<String>,
}

pub(super) fn report(checked: Result<&Outcome, &CliError>) -> String {
    match checked {
        Ok(outcome) => match outcome.error() {
            None => suite(&tests(outcome), None),
            Some(error) => suite(&[], Some(&error)),
        },
        Err(error) => suite(&[], Some(error)),
    }
}

fn tests(outcome: &Outcome) -> Vec<Test> {
    let list = |lines: Vec<String>| Some(lines.join("\n")).filter(|lines| !lines.is_empty());
    let found = outcome.findings().iter().map(ToString::to_string).collect();
    let mut tests = vec![Test { name: "the trace is whole".to_owned(), failure: list(found) }];
    tests.extend(outcome.expectations().iter().map(|result| {
        let failure = format!("expected {}, found {}{}", result.expectation, result.found, breaks(outcome));
        Test { name: format!("has {}", result.expectation), failure: Some(failure).filter(|_| !result.is_met()) }
    }));
    let slow = outcome.slow().iter().map(|slow| {
        let (waited, max) = (HumanDuration(slow.waited), HumanDuration(slow.max));
        format!("{}: {waited} in {}, more than {max}", slow.process, slow.topic)
    });
    tests.push(Test { name: "no message waited too long".to_owned(), failure: list(slow.collect()) });
    tests
}

fn breaks(outcome: &Outcome) -> String {
    let mut text = String::new();
    for at in outcome.breaks() {
        if let Some(last) = &at.last_good {
            let _ = write!(text, "\nbroken after {last}");
        }
        for cause in &at.causes {
            let _ = write!(text, "\nperhaps {cause}");
        }
    }
    text
}

fn suite(tests: &[Test], error: Option<&CliError>) -> String {
    let failures = tests.iter().filter(|test| test.failure.is_some()).count();
    let (count, errors) = (tests.len() + usize::from(error.is_some()), usize::from(error.is_some()));
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"{SUITE}\" tests=\"{count}\" \
         failures=\"{failures}\" errors=\"{errors}\">\n"
    );
    for test in tests {
        let name = escaped(&test.name);
        let _ = match &test.failure {
            None => writeln!(xml, "<testcase classname=\"{SUITE}\" name=\"{name}\"/>"),
            Some(failure) => writeln!(
                xml,
                "<testcase classname=\"{SUITE}\" name=\"{name}\"><failure>{}</failure></testcase>",
                escaped(failure)
            ),
        };
    }
    if let Some(error) = error {
        let error = escaped(&error.to_string());
        let _ = writeln!(
            xml,
            "<testcase classname=\"{SUITE}\" name=\"the trace is whole\"><error>{error}</error></testcase>"
        );
    }
    xml + "</testsuite>\n</testsuites>\n"
}

/// Escapes `text` for XML 1.0. Most control characters cannot be represented at all (section 2.2).
fn escaped(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\n' => xml.push_str("&#10;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => xml.push('\u{fffd}'),
            c => xml.push(c),
        }
    }
    xml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped("a<b>&\"c\"\u{1b}\n"), "a&lt;b&gt;&amp;&quot;c&quot;\u{fffd}&#10;");
        let xml = report(Err(&CliError::new("<script>")));
        assert!(xml.contains("errors=\"1\"") && xml.contains("<error>&lt;script&gt;</error>"), "{xml}");
    }
}

//! The result for build servers: a JUnit report, one test case for each thing that was checked.

use std::fmt::Write as _;

use traced_broker::verify::HumanDuration;

use super::judge::Case;
use crate::trouble::Trouble;

const SUITE: &str = "traced-broker verify";

/// A thing that was checked, and what is wrong with it.
struct Test {
    name: String,
    failure: Option<String>,
}

pub(super) fn report(checked: Result<&Case, &Trouble>) -> String {
    let trouble = match checked {
        Ok(case) => match case.trouble() {
            None => return suite(&tests(case), None),
            Some(trouble) => trouble.to_string(),
        },
        Err(trouble) => trouble.to_string(),
    };
    suite(&[], Some(&trouble))
}

fn tests(case: &Case) -> Vec<Test> {
    let list = |lines: Vec<String>| Some(lines.join("\n")).filter(|lines| !lines.is_empty());
    let found = case.findings().iter().map(ToString::to_string).collect();
    let mut tests = vec![Test { name: "the trace is whole".to_owned(), failure: list(found) }];
    tests.extend(case.expectations().iter().map(|met| {
        let failure = format!("expected {}, found {}{}", met.expectation, met.found, places(case));
        Test { name: format!("has {}", met.expectation), failure: Some(failure).filter(|_| !met.is_met()) }
    }));
    let slow = case.slow().iter().map(|slow| {
        let (waited, most) = (HumanDuration(slow.waited), HumanDuration(slow.most));
        format!("{}: {waited} in {}, more than {most}", slow.process, slow.topic)
    });
    tests.push(Test { name: "no message waited too long".to_owned(), failure: list(slow.collect()) });
    tests
}

fn places(case: &Case) -> String {
    let mut text = String::new();
    for at in case.breaks() {
        if let Some(place) = &at.last_good {
            let _ = write!(text, "\nbroken after {place}");
        }
        for cause in &at.causes {
            let _ = write!(text, "\nperhaps {cause}");
        }
    }
    text
}

fn suite(tests: &[Test], error: Option<&str>) -> String {
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
        let error = escaped(error);
        let _ = writeln!(
            xml,
            "<testcase classname=\"{SUITE}\" name=\"the trace is whole\"><error>{error}</error></testcase>"
        );
    }
    xml + "</testsuite>\n</testsuites>\n"
}

/// `text` as XML 1.0 takes it, section 2.2: most control characters have no form there at all.
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
    fn no_text_can_leave_its_place() {
        assert_eq!(escaped("a<b>&\"c\"\u{1b}\n"), "a&lt;b&gt;&amp;&quot;c&quot;\u{fffd}&#10;");
        let xml = report(Err(&Trouble::new("<script>")));
        assert!(xml.contains("errors=\"1\"") && xml.contains("<error>&lt;script&gt;</error>"), "{xml}");
    }
}

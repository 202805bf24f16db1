//! The user's expectations of the trace.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use traced_broker::verify::{Kind, Span, Trace};

use crate::args::Verify;
use crate::error::CliError;
use crate::time;

/// Maximum size of a file of expectations: 1 MiB.
const MAX_FILE: u64 = 1 << 20;

/// The options that a trace is checked with.
#[derive(Debug)]
pub(super) struct Requirements {
    pub(super) expectations: Vec<Expectation>,
    pub(super) max_queue_latency: Option<Duration>,
    pub(super) max_clock_skew: Duration,
    pub(super) deadline: Duration,
    pub(super) settle: Duration,
}

/// A minimum number of spans with these properties.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Expectation {
    pub(super) span: Option<String>,
    pub(super) service: Option<String>,
    #[serde(default, deserialize_with = "kind")]
    pub(super) kind: Option<Kind>,
    #[serde(default = "one")]
    pub(super) count: usize,
}

/// An expectation, and the number of matching spans.
#[derive(Debug)]
pub(super) struct ExpectationResult {
    pub(super) expectation: Expectation,
    pub(super) found: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectationFile {
    #[serde(default)]
    expect: Vec<Expectation>,
    #[serde(default)]
    max_queue_latency: Option<String>,
}

impl Requirements {
    pub(super) fn new(options: &Verify) -> Result<Self, CliError> {
        let mut expectations: Vec<_> = options.expect.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
        let mut max_queue_latency = options.max_queue_latency;
        if let Some(path) = &options.expectations {
            let file = read(path)?;
            expectations.extend(file.expect);
            let limit = file.max_queue_latency.as_deref().map(time::duration).transpose();
            let limit =
                limit.map_err(|error| CliError::new(format!("{}: max_queue_latency: {error}", path.display())))?;
            max_queue_latency = max_queue_latency.or(limit);
        }
        Ok(Self {
            expectations,
            max_queue_latency,
            max_clock_skew: options.max_clock_skew,
            deadline: options.deadline,
            settle: options.settle,
        })
    }
}

impl Expectation {
    pub(super) fn matches(&self, span: &Span) -> bool {
        self.span.as_ref().is_none_or(|name| *name == span.name)
            && self.service.as_ref().is_none_or(|service| **service == *span.service)
            && self.kind.is_none_or(|kind| kind == span.kind)
    }

    /// Counts the matching spans of the trace.
    pub(super) fn check(&self, trace: &Trace) -> ExpectationResult {
        let found = trace.spans().iter().filter(|span| self.matches(span)).count();
        ExpectationResult { expectation: self.clone(), found }
    }

    /// Returns the topic of an expected process span.
    pub(super) fn topic(&self) -> Option<&str> {
        self.span.as_deref()?.strip_prefix("process ")
    }
}

impl ExpectationResult {
    pub(super) const fn is_met(&self) -> bool {
        self.found >= self.expectation.count
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.span, self.kind) {
            (Some(span), _) => write!(f, "`{span}`")?,
            (None, Some(kind)) => write!(f, "a {} span", kind.as_str())?,
            (None, None) => f.write_str("a span")?,
        }
        if let (Some(_), Some(kind)) = (&self.span, self.kind) {
            write!(f, " ({})", kind.as_str())?;
        }
        if let Some(service) = &self.service {
            write!(f, " of {service}")?;
        }
        if self.count == 1 { Ok(()) } else { write!(f, ", {} times", self.count) }
    }
}

/// Parses `NAME` or `KEY=VALUE`.
fn parse(text: &str) -> Result<Expectation, CliError> {
    let mut expectation = Expectation { span: None, service: None, kind: None, count: 1 };
    let (key, value) = text.split_once('=').unwrap_or(("span", text));
    match (key.trim(), value.trim()) {
        (_, "") => return Err(CliError::new(format!("--expect '{text}': the value is empty"))),
        ("span", name) => expectation.span = Some(name.to_owned()),
        ("service", name) => expectation.service = Some(name.to_owned()),
        ("kind", name) => {
            let kind = kind_of(name).map_err(|error| CliError::new(format!("--expect '{text}': {error}")))?;
            expectation.kind = Some(kind);
        }
        (key, _) => {
            return Err(CliError::new(format!(
                "--expect '{text}': unknown key `{key}`, expected span, service or kind; write a name that contains \
                 `=` as span=NAME"
            )));
        }
    }
    Ok(expectation)
}

fn read(path: &Path) -> Result<ExpectationFile, CliError> {
    let name = path.display();
    let mut text = String::new();
    let opened = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    opened.map_err(|error| CliError::with_source(format_args!("cannot read {name}"), &error))?;
    if text.len() as u64 > MAX_FILE {
        return Err(CliError::new(format!("{name} is longer than {MAX_FILE} bytes")));
    }
    let file: ExpectationFile = serde_json::from_str(&text).map_err(|error| CliError::with_source(name, &error))?;
    let empty = |expectation: &&Expectation| {
        let Expectation { span, service, kind, count } = expectation;
        (span.is_none() && service.is_none() && kind.is_none()) || *count == 0
    };
    if let Some(index) = file.expect.iter().position(|expectation| empty(&expectation)) {
        return Err(CliError::new(format!(
            "{}: expectation {} is empty: give span, service or kind, and a count above 0",
            path.display(),
            index + 1
        )));
    }
    Ok(file)
}

const fn one() -> usize {
    1
}

fn kind<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Kind>, D::Error> {
    let name: Option<String> = Option::deserialize(deserializer)?;
    name.map(|name| kind_of(&name)).transpose().map_err(serde::de::Error::custom)
}

fn kind_of(name: &str) -> Result<Kind, String> {
    let kinds = [Kind::Internal, Kind::Server, Kind::Client, Kind::Producer, Kind::Consumer];
    let found = kinds.into_iter().find(|kind| kind.as_str() == name.to_ascii_lowercase());
    found.ok_or_else(|| format!("unknown kind `{name}`, expected internal, server, client, producer or consumer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(text: &str) -> String {
        parse(text).map_or_else(|error| error.to_string(), |expectation| expectation.to_string())
    }

    #[test]
    fn an_expectation_is_a_name_or_a_key_and_a_value() {
        assert_eq!(description("process orders"), "`process orders`");
        assert_eq!(description("span=a=b"), "`a=b`");
        assert_eq!(description("service=worker"), "a span of worker");
        assert_eq!(description("kind=Consumer"), "a consumer span");
        assert_eq!(
            description("servce=x"),
            "--expect 'servce=x': unknown key `servce`, expected span, service or kind; write a \
             name that contains `=` as span=NAME"
        );
        assert!(description("kind=x").contains("unknown kind `x`"));
        assert!(description("service=").contains("the value is empty"));
    }
}

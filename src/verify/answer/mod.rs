//! Reads the answer of a tracing backend to a query for one trace.
//!
//! | backend | query | function |
//! |---|---|---|
//! | Grafana Tempo | `/api/v2/traces/{id}`, `/api/traces/{id}` | [`tempo`] |
//! | Jaeger | `/api/v3/traces/{id}`, `/api/traces/{id}` | [`jaeger`] |
//!
//! This module makes no HTTP requests: a backend reports a missing trace with the status 404, which
//! the caller must check. Answers may come from any source and contain anything. Their size
//! ([`MAX_ANSWER`]) and number of objects ([`MAX_OBJECTS`]) are limited, and any deviation from the
//! backend's interface is an [`AnswerError`].

mod classic;
mod error;
mod shapes;

pub use self::error::AnswerError;
use self::shapes::{Jaeger, Problem, Tempo};
use super::otlp::{ReadErrorKind, ResourceSpans, spans_of};
use super::span::Span;
use super::trace::Traces;

/// Maximum length of an answer, in bytes: 64 MiB. A trace of 50,000 spans takes about 35 MiB.
pub const MAX_ANSWER: usize = 64 << 20;

/// Maximum number of JSON objects in an answer: 4,194,304. A span with twenty attributes takes 42.
/// Small objects take much more memory than their text.
pub const MAX_OBJECTS: usize = 4 << 20;

/// Reads an answer of Tempo, from either version of its query interface, with ids in base64 or in
/// hex.
///
/// ```
/// use traced_broker::verify::answer;
///
/// let text = concat!(
///     r#"{"batches":[{"scopeSpans":[{"spans":[{"#,
///     r#""traceId":"W47/95gDgQPSabYzgT/GDA==","spanId":"APBnqgupArE=","name":"POST /orders""#,
///     r#"}]}]}]}"#,
/// );
/// let traces = answer::tempo(text.as_bytes())?;
/// let id = traces.iter().next().unwrap().id();
/// assert_eq!(id.to_string(), "5b8efff798038103d269b633813fc60c");
/// # Ok::<(), answer::AnswerError>(())
/// ```
///
/// # Errors
/// See [`AnswerError`]. A trace that Tempo cut because it was too large is also an error
/// ([`AnswerError::Partial`]), because spans missing from it prove nothing.
pub fn tempo(json: &[u8]) -> Result<Traces, AnswerError> {
    bounded(json)?;
    let answer: Tempo = serde_json::from_slice(json)?;
    if answer.is_partial() {
        return Err(AnswerError::Partial(answer.message));
    }
    let trace = answer.trace.unwrap_or_default();
    let lists = [answer.batches, answer.resource_spans, trace.batches, trace.resource_spans];
    if lists.iter().all(Option::is_none) {
        return Err(AnswerError::Foreign);
    }
    Ok(otlp(lists.into_iter().flatten().flatten())?.into_iter().collect())
}

/// Reads an answer of Jaeger, from its HTTP interface since version 3, which is OTLP, or from the
/// older one, which Jaeger's user interface still uses.
///
/// The older interface has less detail, and its times are whole microseconds. It has no parent,
/// only references: the first `CHILD_OF` within the trace is the parent, otherwise the first
/// `FOLLOWS_FROM`, as in Jaeger itself. Every `FOLLOWS_FROM` is a link.
///
/// ```
/// use traced_broker::verify::answer::{self, AnswerError};
///
/// let text = concat!(
///     r#"{"data":[{"processes":{"p1":{"serviceName":"api"}},"spans":[{"#,
///     r#""traceID":"5b8efff798038103d269b633813fc60c","spanID":"00f067aa0ba902b1","#,
///     r#""operationName":"POST /orders","processID":"p1"}]}]}"#,
/// );
/// let traces = answer::jaeger(text.as_bytes())?;
/// assert_eq!(traces.iter().next().unwrap().services(), ["api"]);
///
/// let text = br#"{"error":{"httpCode":404,"message":"No traces found"}}"#;
/// let error = answer::jaeger(text).unwrap_err();
/// assert!(matches!(error, AnswerError::Refused { code: 404, .. }));
/// # Ok::<(), AnswerError>(())
/// ```
///
/// # Errors
/// See [`AnswerError`]; this includes an error that Jaeger returns instead of a trace
/// ([`AnswerError::Refused`]).
pub fn jaeger(json: &[u8]) -> Result<Traces, AnswerError> {
    bounded(json)?;
    let mut spans: Vec<Span> = Vec::new();
    let mut known = false;
    // The newer interface streams: a long trace is a sequence of several JSON values.
    for part in serde_json::Deserializer::from_slice(json).into_iter::<Jaeger>() {
        let part = part?;
        if let Some(problem) = part.error.into_iter().chain(part.errors.into_iter().flatten()).next() {
            let Problem { message, code } = problem;
            return Err(AnswerError::Refused { message, code });
        }
        known |= part.result.is_some() || part.data.is_some();
        spans.extend(otlp(part.result.into_iter().flat_map(|result| result.resource_spans))?);
        for trace in part.data.into_iter().flatten() {
            spans.extend(classic::spans(trace)?);
        }
    }
    if known { Ok(spans.into_iter().collect()) } else { Err(AnswerError::Foreign) }
}

fn otlp(batches: impl Iterator<Item = ResourceSpans>) -> Result<Vec<Span>, AnswerError> {
    batches.flat_map(spans_of).collect::<Result<_, ReadErrorKind>>().map_err(AnswerError::from)
}

fn bounded(json: &[u8]) -> Result<(), AnswerError> {
    if json.trim_ascii().is_empty() {
        return Err(AnswerError::Truncated);
    }
    if json.len() > MAX_ANSWER {
        return Err(AnswerError::TooLong(MAX_ANSWER));
    }
    if json.iter().filter(|byte| **byte == b'{').count() > MAX_OBJECTS {
        return Err(AnswerError::TooMany(MAX_OBJECTS));
    }
    Ok(())
}

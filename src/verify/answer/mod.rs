//! Reads what a tracing backend answers when it is asked for one trace.
//!
//! | backend | query | function |
//! |---|---|---|
//! | Grafana Tempo | `/api/v2/traces/{id}`, `/api/traces/{id}` | [`tempo`] |
//! | Jaeger | `/api/v3/traces/{id}`, `/api/traces/{id}` | [`jaeger`] |
//!
//! Nothing here speaks HTTP: a backend says "no such trace" with the status 404, which is for the caller to see. Answers
//! come from elsewhere and may be anything, so the size ([`MAX_ANSWER`]) and the number of objects ([`MAX_OBJECTS`]) are
//! bounded, and whatever is not as the backend's interface has it is an [`AnswerError`].

mod classic;
mod error;
mod shapes;

pub use self::error::AnswerError;
use self::shapes::{Jaeger, Problem, Tempo};
use super::otlp::{ReadErrorKind, ResourceSpans, spans_of};
use super::span::Span;
use super::trace::Traces;

/// The longest answer read, in bytes: 64 MiB. A trace of 50,000 spans takes about 35.
pub const MAX_ANSWER: usize = 64 << 20;

/// The most JSON objects an answer may hold: 4,194,304. A span with twenty attributes takes 42. Small objects take much
/// more room once read than they do in the text.
pub const MAX_OBJECTS: usize = 4 << 20;

/// Reads Tempo's answer, of either version of its query interface, with ids in base64 or in hex.
///
/// ```
/// use traced_broker::verify::answer;
///
/// let text = r#"{"batches":[{"scopeSpans":[{"spans":[{"traceId":"W47/95gDgQPSabYzgT/GDA==","spanId":"APBnqgupArE=","name":"POST /orders"}]}]}]}"#;
/// let traces = answer::tempo(text.as_bytes())?;
/// assert_eq!(traces.iter().next().unwrap().id().to_string(), "5b8efff798038103d269b633813fc60c");
/// # Ok::<(), answer::AnswerError>(())
/// ```
///
/// # Errors
/// See [`AnswerError`]. A trace that Tempo cut because it is too large for it ([`AnswerError::Partial`]) is one: what is
/// missing from it proves nothing.
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

/// Reads Jaeger's answer: that of its HTTP interface since version 3, which is OTLP, or the one before, which the user
/// interface still asks.
///
/// The older one says less, and times in it are whole microseconds. It has no word for a parent, only for references:
/// the first `CHILD_OF` within the trace is the parent, else the first `FOLLOWS_FROM`, as Jaeger itself has it; every
/// `FOLLOWS_FROM` is a link.
///
/// # Errors
/// See [`AnswerError`]; also what Jaeger answers in place of a trace ([`AnswerError::Refused`]).
pub fn jaeger(json: &[u8]) -> Result<Traces, AnswerError> {
    bounded(json)?;
    let mut spans: Vec<Span> = Vec::new();
    let mut known = false;
    // The newer interface streams: long traces come as several values, one after the other.
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

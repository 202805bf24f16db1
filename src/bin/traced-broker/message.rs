//! Messages as text and as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use console::Style;
use opentelemetry::trace::SpanContext;
use serde_json::{Map, Value, json};
use traced_broker::{Headers, Received};

use crate::context::{CarriedContext, State};
use crate::output::printable;
use crate::secrets::{self, REDACTED};
use crate::time;

/// Maximum characters of a value in the text form.
const MAX_CHARACTERS: usize = 400;
/// Maximum lines of a payload in the text form.
const MAX_LINES: usize = 40;

/// Formats a message for people: a line with its position, a line with its trace, its headers and
/// its payload.
pub(crate) fn text(message: &Received, carried: &CarriedContext, payload: bool, colour: bool) -> String {
    let (dim, bold) = (Style::new().dim().force_styling(colour), Style::new().bold().force_styling(colour));
    let mut lines = vec![bold.apply_to(position(message)).to_string(), trace(carried, colour)];
    lines.extend(headers(message.headers()).map(|line| format!("  {}", dim.apply_to(line))));
    if payload {
        lines.extend(self::payload(message).into_iter().map(|line| format!("  {line}")));
    }
    lines.join("\n")
}

/// Returns a line for each header, without credentials.
pub(crate) fn headers(headers: &Headers) -> impl Iterator<Item = String> {
    headers.iter().map(|(name, value)| match secrets::redact(name, value) {
        Some(value) => printable(&format!("{name}: {}", short(&value))),
        None => printable(&format!("{name}: {REDACTED}")),
    })
}

/// Returns the lines of the payload, at most [`MAX_LINES`].
pub(crate) fn payload(message: &Received) -> Vec<String> {
    if message.is_tombstone() {
        return vec!["(no payload)".to_owned()];
    }
    let Ok(text) = std::str::from_utf8(message.payload()) else { return vec![short(message.payload())] };
    let mut lines: Vec<String> = text.lines().take(MAX_LINES).map(|line| printable(&cut(line))).collect();
    let more = text.lines().skip(MAX_LINES).count();
    if more > 0 {
        lines.push(format!("… {more} more lines"));
    }
    lines
}

/// Returns the message as a JSON object.
pub(crate) fn json(message: &Received, carried: &CarriedContext, payload: bool) -> Value {
    let mut object = json!({
        "topic": message.topic().as_str(),
        "partition": message.partition(),
        "offset": message.offset(),
        "id": message.id(),
        "key": message.key().map(|key| bytes(key)),
        "timestamp": message.timestamp().map(|stored| time::format(stored.time)),
        "attempt": message.attempt(),
        "context": context(carried),
        "headers": header_map(message.headers()),
    });
    if payload {
        object["payload"] = payload_value(message);
    }
    object
}

/// Returns the payload as JSON; `null` for a tombstone.
pub(crate) fn payload_value(message: &Received) -> Value {
    if message.is_tombstone() { Value::Null } else { bytes(message.payload()) }
}

/// Returns the headers as JSON: a list of values for each name, without credentials.
pub(crate) fn header_map(headers: &Headers) -> Value {
    let mut map = Map::new();
    for (name, value) in headers.iter() {
        let shown = secrets::redact(name, value).map_or_else(|| REDACTED.into(), |value| bytes(&value));
        if let Value::Array(values) = map.entry(name).or_insert_with(|| json!([])) {
            values.push(shown);
        }
    }
    Value::Object(map)
}

fn context(carried: &CarriedContext) -> Value {
    let mut object = json!({ "state": carried.state.kind(), "detail": carried.state.detail() });
    if let Some(span) = carried.span() {
        object["trace_id"] = span.trace_id().to_string().into();
        object["span_id"] = span.span_id().to_string().into();
        object["sampled"] = span.is_sampled().into();
    }
    object
}

/// Returns text as a string, and other bytes as an object with their base64.
fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": BASE64.encode(bytes) }),
    }
}

fn position(message: &Received) -> String {
    let time = message.timestamp().map(|stored| time::format(stored.time));
    let parts = [
        time,
        message.partition().map(|partition| format!("partition {partition}")),
        message.offset().map(|offset| format!("offset {offset}")),
        message.key().map(|key| format!("key {}", short(key))),
        message.id().map(|id| format!("id {id}")),
        (message.attempt() > 1).then(|| format!("attempt {}", message.attempt())),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    printable(&if parts.is_empty() { message.topic().to_string() } else { parts.join("  ") })
}

fn trace(carried: &CarriedContext, colour: bool) -> String {
    let text = match (carried.state, carried.span()) {
        (State::Valid, Some(span)) => ids(&span),
        (state, Some(span)) => format!("{} ({})", ids(&span), state.description()),
        (State::Missing, None) => "no trace context".to_owned(),
        (state, None) => format!("no usable trace context ({})", state.description()),
    };
    format!("  {}", carried.state.style().force_styling(colour).apply_to(text))
}

fn ids(span: &SpanContext) -> String {
    let sampled = if span.is_sampled() { "sampled" } else { "not sampled" };
    format!("trace {}  span {}  {sampled}", span.trace_id(), span.span_id())
}

fn short(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => cut(text),
        Err(_) => format!("{} bytes of binary data", value.len()),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

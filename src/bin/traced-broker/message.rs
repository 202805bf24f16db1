//! A message as it is shown.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use console::Style;
use opentelemetry::trace::SpanContext;
use serde_json::{Map, Value, json};
use traced_broker::{Headers, Received};

use crate::context::{Carried, State};
use crate::moment;
use crate::screen::printable;
use crate::secrets::{self, HIDDEN};

/// How many characters of a value are shown to people, and how many lines of a payload.
const MOST_OF_VALUE: usize = 400;
const MOST_LINES: usize = 40;

/// For people: a line of where it stands, one of its trace, its headers, its payload.
pub(crate) fn text(message: &Received, carried: &Carried, payload: bool, colour: bool) -> String {
    let (dim, loud) = (Style::new().dim().force_styling(colour), Style::new().bold().force_styling(colour));
    let mut lines = vec![loud.apply_to(place(message)).to_string(), trace(carried, colour)];
    lines.extend(headers(message.headers()).map(|line| format!("  {}", dim.apply_to(line))));
    if payload {
        lines.extend(self::payload(message).into_iter().map(|line| format!("  {line}")));
    }
    lines.join("\n")
}

/// The headers, one a line, without credentials.
pub(crate) fn headers(headers: &Headers) -> impl Iterator<Item = String> {
    headers.iter().map(|(name, value)| match secrets::without(name, value) {
        Some(value) => printable(&format!("{name}: {}", short(&value))),
        None => printable(&format!("{name}: {HIDDEN}")),
    })
}

/// The payload, a line for each of its own, up to a number of them.
pub(crate) fn payload(message: &Received) -> Vec<String> {
    if message.is_tombstone() {
        return vec!["(no payload)".to_owned()];
    }
    let Ok(text) = std::str::from_utf8(message.payload()) else { return vec![short(message.payload())] };
    let mut lines: Vec<String> = text.lines().take(MOST_LINES).map(|line| printable(&cut(line))).collect();
    let more = text.lines().skip(MOST_LINES).count();
    if more > 0 {
        lines.push(format!("… {more} more lines"));
    }
    lines
}

/// For programs: one object.
pub(crate) fn json(message: &Received, carried: &Carried, payload: bool) -> Value {
    let mut object = json!({
        "topic": message.topic().as_str(),
        "partition": message.partition(),
        "offset": message.offset(),
        "id": message.id(),
        "key": message.key().map(|key| bytes(key)),
        "timestamp": message.timestamp().map(|stored| moment::format(stored.time)),
        "attempt": message.attempt(),
        "context": context(carried),
        "headers": header_map(message.headers()),
    });
    if payload {
        object["payload"] = payload_value(message);
    }
    object
}

/// The payload for programs.
pub(crate) fn payload_value(message: &Received) -> Value {
    if message.is_tombstone() { Value::Null } else { bytes(message.payload()) }
}

/// The headers by name, each with all of its values, without credentials.
pub(crate) fn header_map(headers: &Headers) -> Value {
    let mut map = Map::new();
    for (name, value) in headers.iter() {
        let shown = secrets::without(name, value).map_or_else(|| HIDDEN.into(), |value| bytes(&value));
        if let Value::Array(values) = map.entry(name).or_insert_with(|| json!([])) {
            values.push(shown);
        }
    }
    Value::Object(map)
}

fn context(carried: &Carried) -> Value {
    let mut object = json!({ "state": carried.state.kind(), "detail": carried.state.detail() });
    if let Some(span) = carried.span() {
        object["trace_id"] = span.trace_id().to_string().into();
        object["span_id"] = span.span_id().to_string().into();
        object["sampled"] = span.is_sampled().into();
    }
    object
}

/// Text as it is, and bytes that are none in base64.
fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": BASE64.encode(bytes) }),
    }
}

fn place(message: &Received) -> String {
    let time = message.timestamp().map(|stored| moment::format(stored.time));
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

fn trace(carried: &Carried, colour: bool) -> String {
    let style = match carried.state {
        State::Valid => Style::new().green(),
        State::Dialect(_) => Style::new().yellow(),
        _ => Style::new().red(),
    };
    let words = match (carried.state, carried.span()) {
        (State::Valid, Some(span)) => ids(&span),
        (state, Some(span)) => format!("{} ({})", ids(&span), state.in_words()),
        (State::Missing, None) => "no trace context".to_owned(),
        (state, None) => format!("no usable trace context ({})", state.in_words()),
    };
    format!("  {}", style.force_styling(colour).apply_to(words))
}

fn ids(span: &SpanContext) -> String {
    let sampled = if span.is_sampled() { "sampled" } else { "not sampled" };
    format!("trace {}  span {}  {sampled}", span.trace_id(), span.span_id())
}

fn short(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => cut(text),
        Err(_) => format!("{} bytes that are no text", value.len()),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MOST_OF_VALUE) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

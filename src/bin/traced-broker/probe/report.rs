//! The report of a probe.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use traced_broker::verify::{HumanDuration, Latencies};

use super::marked::Change;
use super::{Arrival, Attempt};
use crate::output::printable;

/// Maximum number of failed messages that are listed.
const MAX_LISTED: usize = 10;

/// The results of all messages.
pub(super) struct Report {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) has_other_target: bool,
    pub(super) attempts: Vec<Attempt>,
}

impl Attempt {
    fn is_fine(&self) -> bool {
        self.arrival.as_ref().is_some_and(|arrival| arrival.broken().next().is_none())
    }
}

impl Arrival {
    fn broken(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.breaks)
    }
}

impl Report {
    /// Returns `true` if all messages arrived with their context.
    pub(super) fn is_fine(&self) -> bool {
        self.attempts.iter().all(Attempt::is_fine)
    }

    pub(super) fn text(&self) -> String {
        let arrived = self.arrivals().count();
        let fine = self.attempts.iter().filter(|attempt| attempt.is_fine()).count();
        let mark = if self.is_fine() { '✓' } else { '✗' };
        let sent = self.attempts.len();
        let mut text = format!("{mark} {arrived} of {sent} arrived, {fine} with the context as sent");
        let way = if self.has_other_target { format!("{} → {}", self.from, self.to) } else { self.from.clone() };
        let _ = write!(text, "\n  through    {}", printable(&way));
        if arrived > 0 {
            text.push_str("\n  compared   trace id, parent span id, sampled flag, tracestate, baggage");
        }
        if self.attempts.len() == 1 {
            self.list(&mut text);
        } else {
            self.table(&mut text);
        }
        for attempt in self.attempts.iter().filter(|attempt| !attempt.is_fine()).take(MAX_LISTED) {
            write_failure(&mut text, attempt);
        }
        self.write_new_parents(&mut text);
        text
    }

    pub(super) fn json(&self) -> Value {
        let times = self.times().map(|(name, times)| (name.replace(' ', "_"), quantiles(&times)));
        json!({
            "from": self.from,
            "to": self.to,
            "fine": self.is_fine(),
            "sent": self.attempts.len(),
            "arrived": self.arrivals().count(),
            "times_ms": times.into_iter().collect::<serde_json::Map<_, _>>(),
            "queue_clock": self.clock(),
            "messages": self.attempts.iter().map(attempt).collect::<Vec<_>>(),
        })
    }

    fn arrivals(&self) -> impl Iterator<Item = &Arrival> {
        self.attempts.iter().filter_map(|attempt| attempt.arrival.as_ref())
    }

    fn times(&self) -> [(&'static str, Latencies); 3] {
        [
            ("confirmed", self.attempts.iter().map(|attempt| attempt.confirmed).collect()),
            ("in queue", self.arrivals().filter_map(|arrival| arrival.queued).map(|(time, _)| time).collect()),
            ("in total", self.arrivals().map(|arrival| arrival.after).collect()),
        ]
    }

    /// Returns the source of the timestamps that the time in the queue is measured from.
    fn clock(&self) -> Option<&'static str> {
        self.arrivals().find_map(|arrival| arrival.queued).map(|(_, stored)| stored.source.as_str())
    }

    fn list(&self, text: &mut String) {
        if let Some(attempt) = self.attempts.first() {
            let _ = write!(text, "\n  trace      {}", attempt.trace_id);
        }
        for (name, times) in self.times() {
            if let Some(time) = times.quantile(1.0) {
                let _ = write!(text, "\n  {name:<9}  {}{}", HumanDuration(time), self.clock_note(name));
            }
        }
    }

    fn table(&self, text: &mut String) {
        let columns = ["p50", "p90", "p99", "max"];
        text.push_str("\n           ");
        columns.iter().for_each(|column| text.push_str(&format!("  {column:>8}")));
        for (name, times) in self.times() {
            let Some(_) = times.quantile(1.0) else { continue };
            let _ = write!(text, "\n  {name:<9}");
            for quantile in [0.5, 0.9, 0.99, 1.0] {
                let time = times.quantile(quantile).map(|time| HumanDuration(time).to_string());
                let _ = write!(text, "  {:>8}", time.unwrap_or_default());
            }
            text.push_str(&self.clock_note(name));
        }
    }

    fn clock_note(&self, name: &str) -> String {
        let clock = self.clock().filter(|_| name == "in queue");
        clock.map(|clock| format!("  by the {clock}'s clock")).unwrap_or_default()
    }

    fn write_new_parents(&self, text: &mut String) {
        let continued = self.arrivals().filter(|arrival| arrival.changes.iter().any(|change| !change.breaks)).count();
        if continued > 0 {
            let _ = write!(
                text,
                "\n  {continued} arrived with another parent span id: a component on the way created a span"
            );
        }
    }
}

fn write_failure(text: &mut String, attempt: &Attempt) {
    let trace = &attempt.trace_id;
    let Some(arrival) = &attempt.arrival else {
        let position = attempt.receipt.offset.map(|offset| format!(" at offset {offset}")).unwrap_or_default();
        let _ = write!(text, "\n✗ lost: trace {trace} was published{position} and did not arrive in time");
        return;
    };
    let _ = write!(text, "\n✗ broken: trace {trace}");
    for change in arrival.broken() {
        let arrived = if change.arrived.is_empty() { "nothing" } else { &change.arrived };
        let line = format!("{}: sent {}, received {arrived}", change.what, change.sent);
        let _ = write!(text, "\n  {}", printable(&line));
    }
}

fn quantiles(times: &Latencies) -> Value {
    let at = |quantile| times.quantile(quantile).map(millis);
    json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0) })
}

fn attempt(attempt: &Attempt) -> Value {
    let arrival = attempt.arrival.as_ref();
    let changes = arrival.iter().flat_map(|arrival| &arrival.changes).map(
        |change| json!({ "what": change.what, "sent": change.sent, "came": change.arrived, "breaks": change.breaks }),
    );
    json!({
        "trace_id": attempt.trace_id,
        "arrived": arrival.is_some(),
        "fine": attempt.is_fine(),
        "confirmed_ms": millis(attempt.confirmed),
        "in_queue_ms": arrival.and_then(|arrival| arrival.queued).map(|(time, _)| millis(time)),
        "in_total_ms": arrival.map(|arrival| millis(arrival.after)),
        "changes": changes.collect::<Vec<_>>(),
    })
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

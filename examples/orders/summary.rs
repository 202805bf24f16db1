//! The sums at the end.

use std::cmp::Reverse;

use traced_broker::verify::{HumanDuration, Latencies, Trace};

use crate::books::Books;
use crate::client::Posted;
use crate::run::{DEAD_ORDERS, NOTIFICATIONS, ORDERS};
use crate::screen::{Screen, Tone};
use crate::telemetry::Exported;
use crate::verdict::Verdict;

/// Of more lines of one sort than this, only the number is told.
const MAX_LINES: usize = 20;

/// All there is to say about a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary<'a> {
    pub(crate) books: &'a Books,
    pub(crate) posted: &'a Posted,
    pub(crate) exported: &'a Exported,
    pub(crate) verdict: &'a Verdict,
}

/// One order, to be drawn.
#[derive(Debug)]
pub(crate) struct Example<'a> {
    pub(crate) title: String,
    pub(crate) trace: &'a Trace,
    /// Its root is a caller's, so that the general check misses it.
    pub(crate) began_elsewhere: bool,
}

impl<'a> Summary<'a> {
    /// The order whose trace shows most: of those that were fulfilled the one with the most attempts.
    pub(crate) fn example(&self) -> Option<Example<'a>> {
        let fulfilled = self.books.accepted().filter(|(_, account)| account.fulfilled && account.sampled);
        let (order, account) = fulfilled.max_by_key(|(order, account)| (account.attempts, Reverse(*order)))?;
        let times = match account.attempts {
            0 | 1 => String::new(),
            2 => ", fulfilled at the second attempt".to_owned(),
            3 => ", fulfilled at the third attempt".to_owned(),
            more => format!(", fulfilled at attempt {more}"),
        };
        Some(Example {
            title: format!("order {order}{times}"),
            trace: self.exported.traces.get(account.trace_id)?,
            began_elsewhere: self.books.callers.contains(&account.trace_id),
        })
    }

    /// Everything else.
    pub(crate) fn lines(&self, screen: Screen) -> Vec<String> {
        let mut lines = Vec::new();
        let refused = self.posted.refused.iter().map(|(line, why)| format!("line {line:>4}  {why}"));
        lines.extend(list(screen, "what the API refused", Tone::Faint, refused.collect()));
        lines.push(screen.heading("summary"));
        lines.extend(self.counts(screen));
        lines.push(String::new());
        lines.extend(self.queues(screen));
        let failed = self.posted.failed.iter().map(|(line, why)| format!("line {line:>4}  {why}"));
        let troubles = self.books.troubles.iter().cloned().chain(failed).chain(self.exported.undelivered());
        lines.extend(list(screen, "trouble", Tone::Plain, troubles.collect()));
        lines.extend(list(screen, "what is wrong", Tone::Bad, self.verdict.problems.clone()));
        lines.push(String::new());
        lines.push(self.bottom_line(screen));
        lines
    }

    /// Orders on the left, traces on the right.
    fn counts(&self, screen: Screen) -> Vec<String> {
        let (tally, verdict) = (&self.books.tally, self.verdict);
        let broken = verdict.broken.len();
        let bad_if = |number| if number > 0 { Tone::Bad } else { Tone::Plain };
        let written = self.exported.file.written();
        let left = [
            ("accepted", tally.accepted, Tone::Plain),
            ("refused", tally.refused, Tone::Plain),
            ("fulfilled", tally.fulfilled, Tone::Plain),
            ("retried", tally.retried, Tone::Plain),
            ("dead-lettered", tally.dead_lettered, Tone::Plain),
            ("unaccounted for", verdict.unaccounted, bad_if(verdict.unaccounted)),
        ];
        let right = [
            ("traces whole", verdict.traces.saturating_sub(broken), if broken == 0 { Tone::Good } else { Tone::Plain }),
            ("traces broken", broken, bad_if(broken)),
            ("spans exported", written.spans, Tone::Plain),
        ];
        let cell = |(name, number, tone): (&str, usize, Tone)| {
            format!(
                "{}{}",
                screen.paint(Tone::Faint, &format!("{name:<18}")),
                screen.paint(tone, &format!("{number:>7}"))
            )
        };
        let mut right = right.into_iter().map(cell);
        let rows = left.into_iter().map(cell);
        rows.map(|row| match right.next() {
            Some(beside) => format!("  {row}          {beside}"),
            None => format!("  {row}"),
        })
        .collect()
    }

    /// How long messages waited, by topic.
    fn queues(&self, screen: Screen) -> Vec<String> {
        let hops = self.exported.traces.hops();
        let head = format!("  {:<18}{:>7}{:>13}{:>12}", "time in queue", "count", "p50", "p99");
        let mut lines = vec![screen.paint(Tone::Faint, &head)];
        for topic in [ORDERS, NOTIFICATIONS, DEAD_ORDERS] {
            // By the span's name and not the destination's, which some brokers have a native name for.
            let name = format!("process {topic}");
            let waits = Latencies::of(hops.iter().filter(|hop| hop.process.name == name));
            let quantile = |quantile| {
                waits.quantile(quantile).map_or_else(|| "–".to_owned(), |wait| HumanDuration(wait).to_string())
            };
            let waited = screen.paint(Tone::Wait, &format!("{:>13}{:>12}", quantile(0.5), quantile(0.99)));
            lines.push(format!("  {topic:<18}{:>7}{waited}", waits.len()));
        }
        lines
    }

    fn bottom_line(&self, screen: Screen) -> String {
        let verdict = self.verdict;
        let file = self.exported.file.path().map(|path| format!("  spans are in {}", path.display()));
        let leftovers = self.books.tally.leftovers;
        let leftovers = (leftovers > 0).then(|| format!("  {leftovers} messages of other runs were passed over"));
        let result = if verdict.traces == 0 && verdict.holds() {
            "  nothing was posted".to_owned()
        } else if verdict.holds() {
            screen.paint(Tone::Good, "  ✓ every trace is whole and every order accounted for")
        } else {
            let broken = format!("{} of {} traces broken", verdict.broken.len(), verdict.traces);
            screen.paint(Tone::Bad, &format!("  ✗ {broken}, {} orders unaccounted for", verdict.unaccounted))
        };
        let rest = leftovers.into_iter().chain(file).map(|line| screen.paint(Tone::Faint, &line));
        rest.chain([result]).collect::<Vec<_>>().join("\n")
    }
}

/// A heading and its lines, nothing for none.
fn list(screen: Screen, title: &str, tone: Tone, items: Vec<String>) -> Vec<String> {
    if items.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![screen.heading(title)];
    lines.extend(items.iter().take(MAX_LINES).map(|item| format!("  {}", screen.paint(tone, &screen.fit(item, 2)))));
    if items.len() > MAX_LINES {
        lines.push(format!("  and {} more", items.len() - MAX_LINES));
    }
    lines
}

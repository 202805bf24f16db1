//! The report at the end: the trace of one order, and the sums.

use std::cmp::Reverse;
use std::fmt;
use std::path::Path;

use console::{Style, style};
use traced_broker::verify::{HumanDuration, Latencies, SpanRef, Waterfall};

use crate::ledger::Books;
use crate::screen::{fit, width};
use crate::shop::{DEAD_ORDERS, NOTIFICATIONS, ORDERS};
use crate::telemetry::Exported;
use crate::verdict::Verdict;

/// Maximum number of lines of one sort; the rest is counted.
const MAX_LINES: usize = 20;

/// The results of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary<'a> {
    pub(crate) books: &'a Books,
    /// The posted lines that were not accepted.
    pub(crate) refused: &'a [String],
    pub(crate) exported: &'a Exported,
    pub(crate) verdict: &'a Verdict,
    pub(crate) file: Option<&'a Path>,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { books, refused, exported, verdict, file } = self;
        self.waterfall(f)?;
        list(f, "not accepted", &Style::new().dim(), refused)?;
        heading(f, "summary")?;
        self.counts(f)?;
        self.queues(f)?;
        let troubles: Vec<_> = books.troubles.iter().chain(&exported.undelivered).cloned().collect();
        list(f, "trouble", &Style::new(), &troubles)?;
        list(f, "problems", &Style::new().red(), &verdict.problems)?;
        writeln!(f)?;
        if books.leftovers > 0 {
            writeln!(f, "  {} messages of other runs were skipped", books.leftovers)?;
        }
        if let Some(file) = file {
            writeln!(f, "  spans are in {}", file.display())?;
        }
        let (broken, traces) = (verdict.broken.len(), verdict.traces);
        let wrong = format!("{broken} of {traces} traces broken, {} orders unaccounted for", verdict.unaccounted);
        match verdict.problems.is_empty() {
            true if traces == 0 => write!(f, "  no order was posted"),
            true => write!(f, "  {}", style("✓ every trace is whole and every order accounted for").green()),
            false => write!(f, "  {}", style(format!("✗ {wrong}")).red()),
        }
    }
}

impl Summary<'_> {
    /// Draws the fulfilled order with the most attempts.
    fn waterfall(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fulfilled =
            self.books.accounts.iter().filter(|(_, account)| account.fulfilled && account.request.is_some());
        let most = fulfilled.max_by_key(|(order, account)| (account.attempts, Reverse(*order)));
        let trace = |request: SpanRef| self.exported.traces.get(request.trace_id);
        let Some((order, account, trace)) =
            most.and_then(|(order, account)| Some((order, account, trace(account.request?)?)))
        else {
            return Ok(());
        };
        heading(f, &format!("order {order}, fulfilled at attempt {}", account.attempts))?;
        let mut waterfall = Waterfall::new(trace).within(&self.exported.traces);
        if !self.books.callers.contains(&trace.id()) {
            waterfall = waterfall.report(&self.verdict.report);
        }
        writeln!(f, "{}", waterfall.width(width()).colour(console::colors_enabled()))
    }

    /// Writes the orders on the left and the traces on the right.
    fn counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (books, broken) = (self.books, self.verdict.broken.len());
        let spans = self.exported.traces.iter().map(|trace| trace.spans().len()).sum();
        let left = [
            ("accepted", books.count(|account| account.accepted)),
            ("refused", books.refused),
            ("fulfilled", books.count(|account| account.fulfilled)),
            ("retried", books.count(|account| account.attempts > 1)),
            ("dead-lettered", books.count(|account| account.dead_lettered)),
            ("unaccounted for", self.verdict.unaccounted),
        ];
        let right = [
            ("traces whole", self.verdict.traces.saturating_sub(broken)),
            ("traces broken", broken),
            ("spans exported", spans),
        ];
        let cell = |(name, number): (&str, usize)| format!("  {}{number:>7}", style(format!("{name:<18}")).dim());
        let mut right = right.map(cell).into_iter();
        for row in left.map(cell) {
            match right.next() {
                Some(beside) => writeln!(f, "{row}        {beside}")?,
                None => writeln!(f, "{row}")?,
            }
        }
        Ok(())
    }

    /// Writes the time that messages waited, by topic.
    fn queues(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = format!("{:<18}{:>7}{:>13}{:>12}", "time in queue", "count", "p50", "p99");
        writeln!(f, "\n  {}", style(head).dim())?;
        let hops = self.exported.traces.hops();
        for topic in [ORDERS, NOTIFICATIONS, DEAD_ORDERS] {
            let name = format!("process {topic}");
            let waits = Latencies::of(hops.iter().filter(|hop| hop.process.name == name));
            let [p50, p99] = [0.5, 0.99].map(|quantile| match waits.quantile(quantile) {
                Some(wait) => HumanDuration(wait).to_string(),
                None => "–".to_owned(),
            });
            let waited = style(format!("{p50:>13}{p99:>12}")).yellow();
            writeln!(f, "  {topic:<18}{:>7}{waited}", waits.len())?;
        }
        Ok(())
    }
}

/// Writes a title with a rule as wide as the screen.
fn heading(f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
    let rule = "─".repeat(width().saturating_sub(title.chars().count() + 1));
    writeln!(f, "\n{} {}\n", style(title).bold(), style(rule).dim())
}

/// Writes a heading and its lines, if there are any.
fn list(f: &mut fmt::Formatter<'_>, title: &str, tone: &Style, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    heading(f, title)?;
    for line in lines.iter().take(MAX_LINES) {
        writeln!(f, "  {}", tone.apply_to(fit(line, 2)))?;
    }
    match lines.len().saturating_sub(MAX_LINES) {
        0 => Ok(()),
        more => writeln!(f, "  and {more} more"),
    }
}

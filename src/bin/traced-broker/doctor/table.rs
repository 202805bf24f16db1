//! The result as text: tables with bars.

use console::{Alignment, Style, measure_text_width, pad_str};
use indicatif::HumanCount;
use traced_broker::verify::HumanDuration;

use super::advice;
use super::tally::{Counts, Tally, percent};
use crate::context::State;
use crate::message;
use crate::output::{Terminal, printable};

/// Maximum number of producers shown.
const MAX_PRODUCERS: usize = 20;
/// The minimum and maximum width of the names in columns.
const NAMES: (usize, usize) = (14, 40);
/// The width of a line without name and bar: the margin, a count, a share and the spaces between.
const FIGURES: usize = 2 + 2 + 9 + 2 + 7 + 2;
const PRODUCER: &str = "producer, by its headers";
/// Maximum width of a bar in columns.
const MAX_BAR: usize = 50;

pub(super) fn draw(tally: &Tally, title: &str, least: Option<f64>, payloads: bool, terminal: Terminal) -> String {
    let layout = Layout::new(tally, terminal);
    let time = HumanDuration(tally.time);
    let mut lines =
        vec![printable(&format!("{title}: {} messages in {time}", HumanCount(tally.all.messages))), String::new()];
    lines.push(layout.head("context", "share"));
    lines.extend(tally.all.states.iter().map(|(state, count)| layout.state(*state, *count, tally.all.messages)));
    lines.extend(remarks(tally));
    lines.extend(advice::lines(tally));
    lines.extend([String::new(), layout.head(PRODUCER, "valid")]);
    let producers = tally.worst_first();
    lines.extend(producers.iter().take(MAX_PRODUCERS).map(|(name, producer)| layout.producer(name, producer)));
    if producers.len() > MAX_PRODUCERS {
        lines.push(format!("  … {} more", producers.len() - MAX_PRODUCERS));
    }
    lines.extend(examples(tally, payloads));
    lines.extend([String::new(), verdict(tally, least, &layout)]);
    lines.join("\n")
}

/// The widths of the columns.
struct Layout {
    name: usize,
    bar: usize,
    terminal: Terminal,
}

impl Layout {
    fn new(tally: &Tally, terminal: Terminal) -> Self {
        let states = tally.all.states.keys().map(|state| state.description());
        let names = states.chain(tally.producers.keys().map(|name| printable(name)));
        let widest = names.map(|name| measure_text_width(&name)).max().unwrap_or_default();
        let name = widest.max(PRODUCER.len()).clamp(NAMES.0, NAMES.1);
        let bar = terminal.width.saturating_sub(name + FIGURES).min(MAX_BAR);
        Self { name, bar, terminal }
    }

    fn head(&self, of: &str, percent: &str) -> String {
        let style = Style::new().bold().force_styling(self.terminal.colour);
        let line = format!("  {}  {:>9}  {:>7}", self.fit(of), "messages", percent);
        style.apply_to(line).to_string()
    }

    fn state(&self, state: State, count: u64, all: u64) -> String {
        self.line(&state.description(), count, percent(count, all), &state.style())
    }

    /// Formats a producer: the bar shows the share of valid contexts, a second line lists the
    /// others.
    fn producer(&self, name: &str, producer: &Counts) -> String {
        let percent = producer.valid_percent();
        let style = if percent >= 100.0 { Style::new().green() } else { Style::new().red() };
        let line = self.line(name, producer.messages, percent, &style);
        let bad = producer.states.iter().filter(|(state, _)| **state != State::Valid);
        let bad: Vec<String> =
            bad.map(|(state, count)| format!("{} {}", HumanCount(*count), state.description())).collect();
        if bad.is_empty() { line } else { format!("{line}\n      {}", bad.join(", ")) }
    }

    fn line(&self, name: &str, count: u64, percent: f64, style: &Style) -> String {
        let bar = style.clone().force_styling(self.terminal.colour).apply_to(self.bar(percent)).to_string();
        let name = self.fit(&printable(name));
        format!("  {name}  {:>9}  {:>5.1} %  {bar}", HumanCount(count).to_string(), percent).trim_end().to_owned()
    }

    fn fit(&self, name: &str) -> String {
        pad_str(name, self.name, Alignment::Left, Some("…")).into_owned()
    }

    /// Draws a bar in eighths of a column; a share above zero is always visible.
    fn bar(&self, percent: f64) -> String {
        const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let eighths = (percent / 100.0 * self.bar as f64 * 8.0).round() as usize;
        let eighths = if percent > 0.0 { eighths.max(1) } else { 0 };
        format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8])
    }
}

fn remarks(tally: &Tally) -> Vec<String> {
    let remarks = tally.remarks.iter().map(|(remark, count)| format!("  also, {}: {remark}", HumanCount(*count)));
    let sampled =
        tally.sampled_percent().map(|percent| format!("  {percent:.1} % of the readable contexts are sampled"));
    remarks.chain(sampled).collect()
}

fn examples(tally: &Tally, payloads: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (state, message) in &tally.examples {
        let position = message
            .offset()
            .map(|offset| format!(", offset {offset}"))
            .or_else(|| Some(format!(", id {}", message.id()?)));
        let partition = message.partition().map(|partition| format!(", partition {partition}"));
        let position = format!("{}{}", partition.unwrap_or_default(), position.unwrap_or_default());
        lines.push(String::new());
        lines.push(printable(&format!("  for example, {}{position}", state.description())));
        let headers: Vec<String> = message::headers(message.headers()).map(|line| format!("    {line}")).collect();
        if headers.is_empty() {
            lines.push("    (no headers)".to_owned());
        }
        lines.extend(headers);
        if payloads {
            lines.extend(message::payload(message).into_iter().map(|line| format!("    {line}")));
        }
    }
    lines
}

fn verdict(tally: &Tally, least: Option<f64>, layout: &Layout) -> String {
    let percent = tally.all.valid_percent();
    let (style, text) = match least {
        Some(least) if percent < least => (Style::new().red(), format!("✗ {percent:.1} % valid, less than {least} %")),
        Some(least) => (Style::new().green(), format!("✓ {percent:.1} % valid, at least {least} %")),
        None if percent >= 100.0 => (Style::new().green(), "✓ every message carries a valid context".to_owned()),
        None => (Style::new().yellow(), format!("{percent:.1} % of the messages carry a valid context")),
    };
    style.force_styling(layout.terminal.colour).apply_to(text).to_string()
}

//! The result for people: tables with bars.

use console::{Alignment, Style, measure_text_width, pad_str};
use traced_broker::verify::HumanDuration;

use super::advice;
use super::tally::{Producer, Tally, share};
use crate::context::State;
use crate::message;
use crate::screen::{Screen, printable};

/// How many producers are shown.
const MOST_SHOWN: usize = 20;
/// Between these lies the width of the names, in columns.
const NAMES: (usize, usize) = (14, 40);
/// What a line takes beside name and bar: the margin, a count, a share, and the spaces between.
const FIGURES: usize = 2 + 2 + 9 + 2 + 7 + 2;
const PRODUCER: &str = "producer, by its headers";
const LONGEST_BAR: usize = 50;

pub(super) fn draw(tally: &Tally, place: &str, least: Option<f64>, payloads: bool, screen: Screen) -> String {
    let sheet = Sheet::new(tally, screen);
    let time = HumanDuration(tally.time);
    let mut lines =
        vec![printable(&format!("{place}: {} messages in {time}", thousands(tally.messages()))), String::new()];
    lines.push(sheet.head("context", "share"));
    lines.extend(tally.states.iter().map(|(state, count)| sheet.state(*state, *count, tally.messages())));
    lines.extend(remarks(tally));
    lines.extend(advice::lines(tally));
    lines.extend([String::new(), sheet.head(PRODUCER, "valid")]);
    let producers = tally.worst_first();
    lines.extend(producers.iter().take(MOST_SHOWN).map(|(name, producer)| sheet.producer(name, producer)));
    if producers.len() > MOST_SHOWN {
        lines.push(format!("  … {} more", producers.len() - MOST_SHOWN));
    }
    lines.extend(examples(tally, payloads));
    lines.extend([String::new(), verdict(tally, least, &sheet)]);
    lines.join("\n")
}

/// The widths that all lines share.
struct Sheet {
    name: usize,
    bar: usize,
    screen: Screen,
}

impl Sheet {
    fn new(tally: &Tally, screen: Screen) -> Self {
        let states = tally.states.keys().map(|state| state.in_words());
        let names = states.chain(tally.producers.keys().map(|name| printable(name)));
        let widest = names.map(|name| measure_text_width(&name)).max().unwrap_or_default();
        let name = widest.max(PRODUCER.len()).clamp(NAMES.0, NAMES.1);
        let bar = screen.width.saturating_sub(name + FIGURES).min(LONGEST_BAR);
        Self { name, bar, screen }
    }

    fn head(&self, of: &str, percent: &str) -> String {
        let style = Style::new().bold().force_styling(self.screen.colour);
        let line = format!("  {}  {:>9}  {:>7}", self.fitted(of), "messages", percent);
        style.apply_to(line).to_string()
    }

    fn state(&self, state: State, count: u64, all: u64) -> String {
        let style = match state {
            State::Valid => Style::new().green(),
            State::Dialect(_) => Style::new().yellow(),
            _ => Style::new().red(),
        };
        self.line(&state.in_words(), count, share(count, all), &style)
    }

    /// The bar is that of the valid ones, and what is wrong with the others stands behind it.
    fn producer(&self, name: &str, producer: &Producer) -> String {
        let percent = producer.valid_percent();
        let style = if percent >= 100.0 { Style::new().green() } else { Style::new().red() };
        let line = self.line(name, producer.messages, percent, &style);
        let bad = producer.states.iter().filter(|(state, _)| **state != State::Valid);
        let bad: Vec<String> =
            bad.map(|(state, count)| format!("{} {}", thousands(*count), state.in_words())).collect();
        if bad.is_empty() { line } else { format!("{line}\n      {}", bad.join(", ")) }
    }

    fn line(&self, name: &str, count: u64, percent: f64, style: &Style) -> String {
        let bar = style.clone().force_styling(self.screen.colour).apply_to(self.bar(percent)).to_string();
        let name = self.fitted(&printable(name));
        format!("  {name}  {:>9}  {:>5.1} %  {bar}", thousands(count), percent).trim_end().to_owned()
    }

    fn fitted(&self, name: &str) -> String {
        pad_str(name, self.name, Alignment::Left, Some("…")).into_owned()
    }

    /// In eighths of a column; what is not nothing is seen.
    fn bar(&self, percent: f64) -> String {
        const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let eighths = (percent / 100.0 * self.bar as f64 * 8.0).round() as usize;
        let eighths = if percent > 0.0 { eighths.max(1) } else { 0 };
        format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8])
    }
}

fn remarks(tally: &Tally) -> Vec<String> {
    let remarks = tally.remarks.iter().map(|(remark, count)| format!("  beside that, {}: {remark}", thousands(*count)));
    let sampled = tally
        .sampled_percent()
        .map(|percent| format!("  of the contexts that can be read, {percent:.1} % are sampled"));
    remarks.chain(sampled).collect()
}

fn examples(tally: &Tally, payloads: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (state, message) in &tally.examples {
        let place = message
            .offset()
            .map(|offset| format!(", offset {offset}"))
            .or_else(|| Some(format!(", id {}", message.id()?)));
        let partition = message.partition().map(|partition| format!(", partition {partition}"));
        let place = format!("{}{}", partition.unwrap_or_default(), place.unwrap_or_default());
        lines.push(String::new());
        lines.push(printable(&format!("  for example, {}{place}", state.in_words())));
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

fn verdict(tally: &Tally, least: Option<f64>, sheet: &Sheet) -> String {
    let percent = tally.valid_percent();
    let (style, text) = match least {
        Some(least) if percent < least => (Style::new().red(), format!("✗ {percent:.1} % valid, less than {least} %")),
        Some(least) => (Style::new().green(), format!("✓ {percent:.1} % valid, at least {least} %")),
        None if percent >= 100.0 => (Style::new().green(), "✓ every message carries a valid context".to_owned()),
        None => (Style::new().yellow(), format!("{percent:.1} % of the messages carry a valid context")),
    };
    style.force_styling(sheet.screen.colour).apply_to(text).to_string()
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join(",")
}

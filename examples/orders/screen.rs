//! Standard output: a terminal with colours, or plain lines.
#![expect(clippy::print_stderr, reason = "what the program has to say")]

use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;

use console::{Style, Term};
use traced_broker::verify::Waterfall;

use crate::books::Books;
use crate::ledger::Tally;
use crate::shop::Shop;
use crate::summary::Summary;
use crate::telemetry::Exported;

/// Wider than this no line gets easier to read.
const MAX_WIDTH: usize = 110;
const PLAIN_WIDTH: usize = 80;

/// What there is to print on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    width: usize,
    colour: bool,
}

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Strong,
    Faint,
    Good,
    Bad,
    /// Waiting, as in the waterfall.
    Wait,
}

impl Screen {
    /// Standard output as it is: colours on a terminal, unless `NO_COLOR` is set.
    pub(crate) fn new() -> Self {
        let terminal = Term::stdout();
        let columns = terminal.size_checked().map_or(PLAIN_WIDTH, |(_, columns)| usize::from(columns));
        Self { width: columns.clamp(40, MAX_WIDTH), colour: terminal.features().colors_supported() }
    }

    /// Says that the system is up, and how to use it.
    pub(crate) fn opened(self, shop: &Shop, serve: bool) {
        let title = self.paint(Tone::Strong, "traced-broker order system");
        let Some(address) = shop.address() else {
            return say(format_args!("{title} on {}, {}; Ctrl-C ends it", shop.place(), shop.services()));
        };
        say(format_args!("{title} on {}, API at http://{address}/orders", shop.place()));
        if serve {
            say(format_args!("\nTry it from another terminal; Ctrl-C ends it and sums up:\n\n{}\n", curl(address)));
        }
    }

    /// What a part of the system can say of itself at its end.
    pub(crate) fn stopped(self, books: &Books, exported: &Exported) {
        let Tally { accepted, fulfilled, notified, dead_lettered, .. } = books.tally;
        say(format_args!(
            "stopped: {accepted} accepted, {fulfilled} fulfilled, {notified} notified, {dead_lettered} dead-lettered"
        ));
        for trouble in books.troubles.iter().cloned().chain(exported.undelivered()) {
            say(format_args!("trouble: {}", self.fit(&trouble, 9)));
        }
    }

    /// Shows one order's way, and the sums.
    pub(crate) fn conclude(self, summary: &Summary<'_>) {
        if let Some(example) = summary.example() {
            say(format_args!("{}", self.heading(&example.title)));
            let mut waterfall = Waterfall::new(example.trace).within(&summary.exported.traces);
            if !example.began_elsewhere {
                waterfall = waterfall.report(&summary.verdict.report);
            }
            say(format_args!("{}", waterfall.width(self.width).colour(self.colour)));
        }
        for line in summary.lines(self) {
            say(format_args!("{line}"));
        }
    }

    /// Text in its colour.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let style = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Strong => Style::new().bold(),
            Tone::Faint => Style::new().dim(),
            Tone::Good => Style::new().green(),
            Tone::Bad => Style::new().red(),
            Tone::Wait => Style::new().yellow(),
        };
        style.force_styling(self.colour).apply_to(text).to_string()
    }

    /// An empty line, then a title with a rule as wide as the screen.
    pub(crate) fn heading(self, title: &str) -> String {
        let rule = "─".repeat(self.width.saturating_sub(title.chars().count() + 1));
        format!("\n{} {}\n", self.paint(Tone::Strong, title), self.paint(Tone::Faint, &rule))
    }

    /// Text on one line, cut to the screen, without what a terminal would act upon.
    pub(crate) fn fit(self, text: &str, indent: usize) -> String {
        let printable: String = text.chars().filter(|character| !character.is_control()).collect();
        let room = self.width.saturating_sub(indent);
        console::truncate_str(&printable, room, "…").into_owned()
    }
}

/// Writes a line. Whoever reads them may have read enough: `| head` is no reason to fail.
fn say(line: fmt::Arguments<'_>) {
    let _nobody_reads_on = writeln!(io::stdout().lock(), "{line}");
}

/// Says why the program could not run.
pub(crate) fn complain(error: &anyhow::Error) {
    let mut last = error.to_string();
    eprintln!("error: {last}");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Clients wrap an error in one that says the same and a word more.
        if !last.contains(&cause) {
            eprintln!("  because: {cause}");
            last = cause;
        }
    }
}

/// The library's and the SDK's own words, when `RUST_LOG` asks for them.
pub(crate) fn log_if_asked() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
}

fn curl(address: SocketAddr) -> String {
    let order = r#"{
    "id": "ORD-1", "placed_at": "2026-11-23T08:00:00Z", "currency": "EUR",
    "customer": {"id": "C-1", "name": "Ada", "email": "ada@example.org"},
    "items": [{"sku": "TEA-SENCHA-100", "quantity": 2, "unit_price_minor": 1180}],
    "ship_to": {"street": "Hauptstraße 1", "city": "Ulm",
                "postal_code": "89073", "country": "DE"},
    "carrier": "dhl"
  }"#;
    format!("  curl -i http://{address}/orders -d '{order}'")
}

//! Output on the terminal.
#![expect(clippy::print_stderr, reason = "errors of a program")]

use std::fmt::Display;
use std::io::{self, Write as _};

use console::{Term, style};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Args;
use crate::ledger::{Account, Books, Ledger};
use crate::shop::Shop;
use crate::telemetry::Exported;

/// The width of a line, wide enough for a waterfall.
pub(crate) fn width() -> usize {
    Term::stdout().size_checked().map_or(80, |(_, columns)| usize::from(columns)).clamp(40, 110)
}

/// Returns text on one line without control characters, cut to the width that is left.
pub(crate) fn fit(text: &str, indent: usize) -> String {
    let printable: String = text.chars().filter(|character| !character.is_control()).collect();
    console::truncate_str(&printable, width() - indent, "…").into_owned()
}

/// Writes a line. A reader that has gone, such as `head`, is no error.
pub(crate) fn say(line: impl Display) {
    let _reader_has_gone = writeln!(io::stdout().lock(), "{line}");
}

/// Says that the services are up, and how to use them.
pub(crate) fn opened(shop: &Shop, args: &Args) {
    let title = format!("{} on {}", style("traced-broker order system").bold(), shop.place());
    let Some(address) = shop.address else {
        return say(format!("{title}, roles {:?}; Ctrl-C ends it", args.role));
    };
    say(format!("{title}, API at http://{address}/orders"));
    if args.serves() {
        let order = include_str!("order.json").trim_end();
        say("\nTry it from another terminal; Ctrl-C ends it and sums up:\n");
        say(format!("curl -i http://{address}/orders -d '{order}'\n"));
    }
}

/// Says what a part of the system did.
pub(crate) fn stopped(books: &Books, exported: &Exported) {
    say(format!(
        "stopped: {} accepted, {} fulfilled, {} notified, {} dead-lettered",
        books.count(|account| account.accepted),
        books.count(|account| account.fulfilled),
        books.count(|account| account.notified),
        books.count(|account| account.dead_lettered),
    ));
    for trouble in books.troubles.iter().chain(&exported.undelivered) {
        say(format!("trouble: {}", fit(trouble, 9)));
    }
}

/// Shows a bar on a terminal; `orders` is 0 if the number is not known.
pub(crate) async fn show_progress(ledger: Ledger, orders: usize) {
    let template = if orders > 0 { "  {bar:36.cyan/dim} {pos}/{len}  {msg:.dim}" } else { "  {msg:.dim}" };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(orders as u64).with_style(style.progress_chars("━╸─"));
    let mut changes = ledger.watch();
    while !bar.is_hidden() && changes.changed().await.is_ok() {
        let books = changes.borrow_and_update();
        let answered = books.count(|account| account.accepted) + books.refused + books.failed;
        let (fulfilled, notified) = (books.count(|account| account.fulfilled), books.count(|account| account.notified));
        bar.set_position((answered - books.count(Account::is_open)) as u64);
        bar.set_message(format!("posted {answered}, fulfilled {fulfilled}, notified {notified}"));
    }
}

/// Says why the program could not run.
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// Shows the logs of the library and the SDK if `RUST_LOG` asks for them.
pub(crate) fn log_if_asked() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    }
}

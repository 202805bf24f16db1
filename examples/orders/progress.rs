//! How far the orders have got, while they are on their way.
#![expect(clippy::print_stderr, reason = "the progress of a program that is watched")]

use std::time::Duration;

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::ledger::Tally;

const FRAME: Duration = Duration::from_millis(60);
/// Between two lines where there is no terminal.
const LINE: Duration = Duration::from_secs(2);

/// Shows the tally until it is finished: bars on a terminal, else a line now and then. On standard error, both.
#[derive(Debug)]
pub(crate) struct Progress {
    finish: oneshot::Sender<()>,
    shown: JoinHandle<()>,
}

impl Progress {
    /// Starts to show the way of so many orders; of 0, what others post.
    pub(crate) fn start(tally: watch::Receiver<Tally>, orders: usize) -> Self {
        let (finish, finished) = oneshot::channel();
        let shown = if Term::stderr().is_term() {
            tokio::spawn(show_bars(tally, orders, finished))
        } else {
            tokio::spawn(show_lines(tally, orders, finished))
        };
        Self { finish, shown }
    }

    /// Shows the last state and ends.
    pub(crate) async fn finish(self) {
        // Whoever shows it may have come to an end by itself.
        let _gone = self.finish.send(());
        let _cancelled = self.shown.await;
    }
}

async fn show_bars(tally: watch::Receiver<Tally>, orders: usize, mut finished: oneshot::Receiver<()>) {
    let bars = Bars::new(orders > 0);
    loop {
        bars.show(*tally.borrow(), orders);
        tokio::select! {
            _ = &mut finished => break,
            () = sleep(FRAME) => {}
        }
    }
    bars.show(*tally.borrow(), orders);
    bars.end();
}

/// Three bars; the later ones wait for what the first lets through.
struct Bars {
    posted: ProgressBar,
    fulfilled: ProgressBar,
    notified: ProgressBar,
}

impl Bars {
    /// Where the number of orders is not known beforehand there is nothing to be filled, only counts.
    fn new(known: bool) -> Self {
        let template = if known {
            "  {prefix:10} {bar:36.cyan/dim} {pos:>5}/{len}  {msg:.dim}"
        } else {
            "  {prefix:10} {pos:>5}  {msg:.dim}"
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.progress_chars("━╸─");
        let all = MultiProgress::new();
        let bar = |name: &'static str| all.add(ProgressBar::new(0).with_style(style.clone()).with_prefix(name));
        Self { posted: bar("posted"), fulfilled: bar("fulfilled"), notified: bar("notified") }
    }

    fn show(&self, tally: Tally, orders: usize) {
        let lost = tally.refused + tally.failed;
        let expected = orders.max(tally.answered()).saturating_sub(lost);
        set(&self.posted, tally.answered(), orders);
        set(&self.fulfilled, tally.fulfilled, expected.saturating_sub(tally.dead_lettered));
        set(&self.notified, tally.notified, expected.saturating_sub(tally.dead_lettered));
        if lost > 0 {
            self.posted.set_message(format!("{lost} not taken"));
        }
        if tally.dead_lettered > 0 {
            self.fulfilled.set_message(format!("{} dead-lettered", tally.dead_lettered));
        }
    }

    /// Leaves the bars where they are.
    fn end(&self) {
        for bar in [&self.posted, &self.fulfilled, &self.notified] {
            bar.abandon();
        }
        eprintln!();
    }
}

fn set(bar: &ProgressBar, position: usize, length: usize) {
    bar.set_length(length as u64);
    bar.set_position(position as u64);
}

async fn show_lines(tally: watch::Receiver<Tally>, orders: usize, mut finished: oneshot::Receiver<()>) {
    let mut last = Tally::default();
    let mut due = Instant::now() + LINE;
    loop {
        let over = tokio::select! {
            _ = &mut finished => true,
            () = tokio::time::sleep_until(due) => false,
        };
        due += LINE;
        let now = *tally.borrow();
        if now != last {
            last = now;
            let of = if orders > 0 { format!(" of {orders}") } else { String::new() };
            eprintln!("posted {}{of}, fulfilled {}, notified {}", now.answered(), now.fulfilled, now.notified);
        }
        if over {
            return;
        }
    }
}

//! Time and CPU of a run, and comparisons within rounds.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::time::Duration;

/// The time and CPU of one run of one contender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    elapsed: Duration,
    cpu: Duration,
}

/// Runs `work`, which returns the duration of its measured part; CPU is that of this process
/// meanwhile, not of the broker.
pub(crate) async fn during(work: impl Future<Output = Duration>) -> Measured {
    let before = cpu();
    let elapsed = work.await;
    Measured { elapsed, cpu: cpu() - before }
}

/// Returns the user and system time of this process, in steps of 10 ms.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    // The command's name, in parentheses, may contain anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// All runs of one kind of work, by round and contender.
pub(crate) struct Rounds {
    title: &'static str,
    runs: BTreeMap<(usize, &'static str), Measured>,
}

impl Rounds {
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, runs: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, round: usize, contender: &'static str, measured: Measured) {
        self.runs.insert((round, contender), measured);
    }

    /// Prints a table of each contender's throughput and CPU against the base's of the same round.
    pub(crate) fn print(&self, contenders: &[&'static str], base: &'static str, messages: usize) {
        println!("\n{}\n", self.title);
        println!("| contender | messages/s | CPU ms per 1000 | throughput / {base} | CPU / {base} |");
        println!("|---|---:|---:|---:|---:|");
        for contender in contenders {
            let runs: Vec<Measured> = self.of(contender);
            let rate = middle(runs.iter().map(|run| messages as f64 / run.elapsed.as_secs_f64()));
            let cpu = middle(runs.iter().map(|run| run.cpu.as_secs_f64() * 1e6 / messages as f64));
            let pairs: Vec<_> = runs.iter().zip(self.of(base)).collect();
            let speed = middle(pairs.iter().map(|(run, base)| base.elapsed.as_secs_f64() / run.elapsed.as_secs_f64()));
            let effort = middle(pairs.iter().map(|(run, base)| run.cpu.as_secs_f64() / base.cpu.as_secs_f64()));
            println!(
                "| {contender} | {:.0} | {:.1} | {:.2} ({:.2}–{:.2}) | {:.2} ({:.2}–{:.2}) |",
                rate.1, cpu.1, speed.1, speed.0, speed.2, effort.1, effort.0, effort.2
            );
        }
    }

    fn of(&self, contender: &str) -> Vec<Measured> {
        self.runs.iter().filter(|((_, name), _)| *name == contender).map(|(_, run)| *run).collect()
    }
}

/// Returns the lower quartile, the median and the upper quartile.
fn middle(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let at = |part: f64| sorted[((sorted.len() - 1) as f64 * part).round() as usize];
    (at(0.25), at(0.5), at(0.75))
}

//! The progress of a bridge.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::broker::copies::HeaderCounts;

/// The progress of a bridge since it began to run.
///
/// ```
/// use std::time::Duration;
/// use traced_broker::bridge::Progress;
///
/// let mut progress = Progress::default();
/// progress.elapsed = Duration::from_secs(2);
/// progress.copied = 10;
/// progress.rate = 5.0;
/// progress.failed = 1;
/// assert_eq!(progress.to_string(), "10 copied in 2.0s (5/s), 1 attempts failed");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Time since the bridge began to run.
    pub elapsed: Duration,
    /// Copies that the target confirmed.
    pub copied: u64,
    /// Total size of the payloads of these copies, in bytes.
    pub bytes: u64,
    /// Failed attempts to copy a message.
    pub failed: u64,
    /// Messages in flight: taken at the source, and neither confirmed by the target nor given up.
    pub under_way: u64,
    /// Headers of the copies that did not cross, because the target cannot carry them.
    pub headers_dropped: u64,
    /// Headers of the copies that crossed under another name.
    pub headers_renamed: u64,
    /// Copies per second since the previous report; in the first and in the last report, since the
    /// start.
    pub rate: f64,
}

impl fmt::Display for Progress {
    /// Writes one line: the copies, the time, the rate, and the other counts that are not 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} copied in {:.1?} ({:.0}/s)", self.copied, self.elapsed, self.rate)?;
        let others = [
            (self.failed, "attempts failed"),
            (self.headers_dropped, "headers dropped"),
            (self.headers_renamed, "headers renamed"),
        ];
        others.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, what)| write!(f, ", {count} {what}"))
    }
}

/// The counts of a running bridge.
pub(super) struct Counts {
    began: Instant,
    copied: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    under_way: AtomicU64,
    dropped: AtomicU64,
    renamed: AtomicU64,
}

impl Counts {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        let (copied, bytes, failed, under_way) = (zero(), zero(), zero(), zero());
        Self { began: Instant::now(), copied, bytes, failed, under_way, dropped: zero(), renamed: zero() }
    }

    /// Counts a message as under way until the returned guard is dropped.
    pub(super) fn set_out(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(&self.under_way)
    }

    pub(super) fn copied(&self, bytes: usize, counts: HeaderCounts) {
        self.copied.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.dropped.fetch_add(counts.dropped, Ordering::Relaxed);
        self.renamed.fetch_add(counts.renamed, Ordering::Relaxed);
    }

    pub(super) fn arrived(&self) -> u64 {
        self.copied.load(Ordering::Relaxed)
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the progress until now, with the rate since the start.
    pub(super) fn progress(&self) -> Progress {
        self.since(Duration::ZERO, 0)
    }

    /// Returns the progress until now, with the rate since `time`, when `copied_then` messages had
    /// been copied.
    fn since(&self, time: Duration, copied_then: u64) -> Progress {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (elapsed, copied) = (self.began.elapsed(), count(&self.copied));
        let seconds = elapsed.saturating_sub(time).as_secs_f64();
        Progress {
            elapsed,
            copied,
            bytes: count(&self.bytes),
            failed: count(&self.failed),
            under_way: count(&self.under_way),
            headers_dropped: count(&self.dropped),
            headers_renamed: count(&self.renamed),
            rate: if seconds > 0.0 { copied.saturating_sub(copied_then) as f64 / seconds } else { 0.0 },
        }
    }
}

/// A guard of a message that is under way.
pub(super) struct UnderWay<'a>(&'a AtomicU64);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The reporter of the progress of a running bridge.
pub(super) struct Watch<'a> {
    pub(super) counts: &'a Counts,
    pub(super) every: Duration,
    pub(super) report: Option<&'a (dyn Fn(Progress) + Send + Sync + 'a)>,
}

impl Watch<'_> {
    pub(super) async fn during<F: Future>(self, work: F) -> F::Output {
        let Self { counts, every, report } = self;
        let Some(report) = report else { return work.await };
        // A period of zero would report without end.
        let every = every.max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut work = pin!(work);
        let mut last = Progress::default();
        loop {
            tokio::select! {
                biased;
                output = &mut work => {
                    report(counts.progress());
                    return output;
                }
                _ = ticks.tick() => {
                    last = counts.since(last.elapsed, last.copied);
                    report(last);
                }
            }
        }
    }
}

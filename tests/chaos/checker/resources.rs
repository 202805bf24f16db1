//! Memory, threads and descriptors of the processes, and passwords in texts.

use std::collections::BTreeMap;

use super::ledger::Ledger;
use super::{Finding, Invariant, Rules};
use crate::history::{Event, Record};

const MINUTE: u64 = 60_000_000;
/// Time in which a process fills its buffers and caches, in microseconds.
const WARM_UP: u64 = MINUTE;
/// Maximum growth after it, in KiB per minute.
const GROWTH: f64 = 1024.0;

pub(super) fn check(ledger: &Ledger<'_>) -> Vec<Finding> {
    let mut findings = growth(ledger);
    findings.extend(ledger.rest.iter().filter_map(|record| left(&record.event)));
    findings
}

/// Finds threads and descriptors that were left behind.
fn left(event: &Event) -> Option<Finding> {
    let Event::Resources { member, before, after } = event else { return None };
    let is_more = after.threads > before.threads || after.descriptors > before.descriptors;
    let text = format!(
        "{member} had {} threads and {} descriptors before, {} and {} after",
        before.threads, before.descriptors, after.threads, after.descriptors
    );
    is_more.then(|| Finding::new(Invariant::I11, None, text))
}

/// Finds processes whose memory grew for at least a minute after their first one.
fn growth(ledger: &Ledger<'_>) -> Vec<Finding> {
    let mut samples: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for record in &ledger.rest {
        if let Event::Memory { member, kibibytes } = &record.event {
            samples.entry(member).or_default().push((record.at, *kibibytes));
        }
    }
    let mut findings = Vec::new();
    for (member, samples) in samples {
        let begin = samples[0].0;
        let warm: Vec<_> = samples.into_iter().filter(|(at, _)| *at >= begin + WARM_UP).collect();
        let Some(((first, _), (last, _))) = warm.first().zip(warm.last()) else { continue };
        let per_minute = slope(&warm);
        if last - first >= MINUTE && per_minute > GROWTH {
            let text = format!("the memory of {member} grew by {per_minute:.0} KiB per minute");
            findings.push(Finding::new(Invariant::I9, None, text));
        }
    }
    findings
}

/// Returns the growth per minute of the line that fits the samples best.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn slope(samples: &[(u64, u64)]) -> f64 {
    let begin = samples[0].0;
    let points = || samples.iter().map(|(at, size)| ((at - begin) as f64 / MINUTE as f64, *size as f64));
    let count = samples.len() as f64;
    let mean = (points().map(|(x, _)| x).sum::<f64>() / count, points().map(|(_, y)| y).sum::<f64>() / count);
    let covariance: f64 = points().map(|(x, y)| (x - mean.0) * (y - mean.1)).sum();
    covariance / points().map(|(x, _)| (x - mean.0).powi(2)).sum::<f64>().max(f64::MIN_POSITIVE)
}

/// Finds events in which the password of the clients can be read.
pub(super) fn told(history: &[Record], rules: &Rules) -> Vec<Finding> {
    let Some(secret) = &rules.secret else { return Vec::new() };
    let texts = history.iter().filter_map(|record| serde_json::to_string(&record.event).ok());
    let told = texts.filter(|text| text.contains(&**secret)).map(|text| text.replace(&**secret, "<the password>"));
    told.map(|text| Finding::new(Invariant::I14, None, format!("the password can be read: {text}"))).collect()
}

//! The threads, descriptors and memory of this process, as the kernel counts them.

use std::fs;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use traced_broker::TracedBroker as _;

use crate::history::{Event, Resources};
use crate::recorder::Recorder;
use crate::site::connect_patiently;

/// Maximum time until everything that was closed is gone. Idle threads of runtimes end earlier.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(200);
/// Time between two samples of the memory.
const SAMPLING: Duration = Duration::from_secs(1);

/// Connects and closes once, and counts. So the threads that a client crate starts once for the
/// whole process are there already.
pub(crate) async fn before(url: &str) -> Resources {
    let broker = connect_patiently(url).await;
    let _ = broker.close().await;
    drop(broker);
    tokio::time::sleep(5 * PAUSE).await;
    now()
}

/// Waits until nothing more is there than before, or for a while, and notes both counts.
pub(crate) async fn after(member: &str, before: Resources, recorder: &Recorder) {
    let begin = Instant::now();
    let mut after = now();
    while (after.threads > before.threads || after.descriptors > before.descriptors) && begin.elapsed() < PATIENCE {
        tokio::time::sleep(PAUSE).await;
        after = now();
    }
    recorder.note(Event::Resources { member: member.to_owned(), before, after });
}

/// Notes the memory of this process until it is aborted.
pub(crate) fn sample_memory(member: String, recorder: Recorder) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            if let Some(kibibytes) = resident() {
                recorder.note(Event::Memory { member: member.clone(), kibibytes });
            }
            tokio::time::sleep(SAMPLING).await;
        }
    })
}

fn now() -> Resources {
    Resources { threads: entries("/proc/self/task"), descriptors: entries("/proc/self/fd") }
}

fn entries(folder: &str) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// Returns the resident memory in KiB.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

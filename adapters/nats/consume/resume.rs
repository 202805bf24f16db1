//! Questions to the server before a session goes on over another line.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::driver::Disposition;
use crate::error::{ErrorKind, Result};

use super::super::connection::info::ConsumerInfo;
use super::super::headers::reply_subject;
use super::consumer::Consumer;
use super::session::{Session, payload};
use super::unreadable::{Quarantined, Suspects};
use crate::adapters::nats::connection::api;

/// Maximum number of sequences in the stream among which the messages that were on their way are
/// looked for. Others come again after `ack_wait`.
const REACH: u64 = 65_536;

/// Maximum wait for the server to notice that a connection is gone, and interval of the looks.
const NOTICED: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(20);

impl Session {
    /// Returns `true` if the server knows of everything that this session was handed.
    pub(crate) fn knows(&self, info: &ConsumerInfo) -> bool {
        let seen = self.state.lock().seen;
        self.consumer == Consumer::from(info) && seen.is_none_or(|seen| seen <= info.delivered)
    }

    /// Finds the messages over which the client gave up its connection, if that may be why.
    pub(crate) async fn unreadable(
        &self,
        subject: &str,
        info: &ConsumerInfo,
        is_shared: bool,
    ) -> Result<Vec<Quarantined>> {
        let (is_suspected, was_puzzled, from, held) = {
            let state = self.state.lock();
            let from = state.seen.unwrap_or(info.ack_floor).saturating_add(1);
            let held = state.window.out().map(|out| out.sequence).collect();
            let is_suspected = state.has_ended || state.line.is_lost_alone(&self.link, is_shared);
            (is_suspected, state.puzzled, from, held)
        };
        if !is_suspected {
            return Ok(Vec::new());
        }
        let suspects = Suspects { link: &self.link, subject, info, held };
        let found = match suspects.next(from).await {
            // It may have been one that comes again.
            Ok(found) if found.is_empty() && was_puzzled => suspects.oldest().await,
            found => found,
        };
        match found {
            Ok(found) => {
                self.state.lock().puzzled = found.is_empty();
                Ok(found)
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let stream = info.stream.as_str();
                tracing::debug!(stream, %error, "messages with unreadable headers cannot be looked for");
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Has the server hand out again at once what was on its way when the line was lost. Where
    /// other members share the group, it may be theirs, and comes again after `ack_wait`.
    pub(crate) async fn call_back(&self, info: &ConsumerInfo, found: &[Quarantined]) -> Result<()> {
        let (missing, seen) = {
            let state = self.state.lock();
            (state.on_the_way(info.deliveries), state.seen)
        };
        match missing {
            Some(0) => return Ok(()),
            Some(_) => {}
            None => {
                self.state.lock().wait_no_longer();
                return Ok(());
            }
        }
        let from = seen.unwrap_or(info.ack_floor).saturating_add(1);
        let to = info.delivered.min(from.saturating_add(REACH));
        let is_found = |sequence: &u64| found.iter().any(|found| found.sequence == *sequence);
        let earlier: Vec<u64> = self.state.lock().called_back.missing().collect();
        // Those that are still at the server are also sent back, because it is not known which.
        let sequences: Vec<u64> = earlier.into_iter().chain(from..=to).filter(|it| !is_found(it)).collect();
        let again = payload(Disposition::GiveBack);
        for sequence in &sequences {
            let subject = reply_subject::send_back(&info.stream, &info.name, *sequence, info.deliveries);
            // The client waits for room in its queue.
            let sent = self.link.client().publish(subject, again.clone()).await;
            sent.map_err(super::super::error::enqueue)?;
        }
        self.link.processed(&info.stream, &info.name).await?;
        self.state.lock().called_back.add(sequences, info.delivered);
        Ok(())
    }

    /// Waits a moment for the server to notice that earlier connections of this member are gone:
    /// until then it hands messages out to them. Returns the consumer as it is then.
    pub(crate) async fn forgotten(&self, mut info: ConsumerInfo) -> Result<ConsumerInfo> {
        let deadline = Instant::now() + NOTICED;
        // Requests that wait are of other members, or of these connections.
        while info.waiting > 0 && self.state.lock().is_alone() && Instant::now() < deadline {
            sleep(LOOK).await;
            info = api::consumer(&self.link, &info.stream, &info.name).await?;
        }
        Ok(info)
    }
}

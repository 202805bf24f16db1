//! Trims a stream of what all its groups have settled.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use ::redis::Value;
use tokio::time::Instant;

use crate::error::Result;

use super::super::config::{Config, HANDLED_FOR, ROUNDS};
use super::super::connection::Connection;
use super::super::connection::commands::{Member, TRIM_AT_ONCE};
use super::super::error::command_failed;

/// Time after which a group without members, which keeps messages, is warned of: a deployment or an
/// outage is over by then.
const UNATTENDED: Duration = Duration::from_secs(60 * 60);

/// The trimming of one stream by one member of a group.
pub(super) struct Trimmer {
    round: Duration,
    due: Instant,
    /// `true` once it was said that the stream cannot be trimmed.
    is_kept: bool,
    /// The groups that were warned of.
    named: HashSet<String>,
}

impl Trimmer {
    pub(super) fn new(config: &Config) -> Self {
        Self { round: config.claim_idle / ROUNDS, due: Instant::now(), is_kept: false, named: HashSet::new() }
    }

    /// Returns the time of the next trimming.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Trims the stream, if it is time.
    pub(super) async fn trim(&mut self, connection: &mut Connection, config: &Config, member: &Member) -> Result<()> {
        let now = Instant::now();
        if now < self.due {
            return Ok(());
        }
        self.due = now + self.round;
        let Some(any) = config.retention.trims_any() else { return Ok(()) };
        let until = SystemTime::now().checked_sub(HANDLED_FOR).unwrap_or(SystemTime::UNIX_EPOCH);
        match connection.call(&member.trim(until, any, UNATTENDED)).await {
            Ok(Value::Array(answer)) => self.look_at(&answer, now, member),
            Ok(_) => {}
            Err(error) if error.code().is_none() => return Err(command_failed("trim the stream", error)),
            Err(error) if !std::mem::replace(&mut self.is_kept, true) => {
                let stream = &member.stream;
                tracing::warn!(stream, %error, "messages that are handled stay in the stream: it cannot be trimmed");
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Reads the answer: the number of removed entries, and a group that keeps others.
    fn look_at(&mut self, answer: &[Value], now: Instant, member: &Member) {
        let [Value::Int(removed), Value::BulkString(keeper)] = answer else { return };
        // The limit was reached, or nearly: the server removes whole blocks of entries.
        if u64::try_from(*removed).is_ok_and(|removed| removed >= TRIM_AT_ONCE / 2) {
            self.due = now;
        }
        if !keeper.is_empty() {
            let keeper = String::from_utf8_lossy(keeper).into_owned();
            if !self.named.contains(&keeper) {
                let stream = &member.stream;
                tracing::warn!(
                    stream,
                    group = keeper,
                    "the stream keeps everything that this group has not handled, and it had no member for an \
                     hour: if it is gone for good, remove it with XGROUP DESTROY"
                );
                self.named.insert(keeper);
            }
        }
    }
}

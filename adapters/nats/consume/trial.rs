//! The note that a handler runs on a suspect. It is withdrawn when the process has lived to tell.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::driver::Confirmation;

use super::super::connection::link::Link;
use super::attempts::Attempts;

/// Interval at which a note that could not be withdrawn is withdrawn again: the connection may be
/// back.
const AGAIN: Duration = Duration::from_millis(500);
/// Maximum time for withdrawing a note. What is left then counts as a lost trial.
const GIVE_UP: Duration = Duration::from_secs(15 * 60);

/// A trial that is noted. Dropping it withdraws the note, over the next connection if this one is
/// lost.
#[derive(Debug)]
pub(crate) struct Trial {
    link: Arc<Link>,
    attempts: Arc<Attempts>,
    /// The sequence of the message in its stream.
    message: u64,
    /// Tells if there may be a note at the server; `None` once that is known.
    noted: Option<oneshot::Receiver<bool>>,
    /// `true` if there is no note to withdraw.
    is_over: bool,
    /// `true` if the message is settled for good.
    is_settled: bool,
}

impl Trial {
    /// Notes a trial. The confirmation tells that the note is at the server.
    pub(crate) fn begin(link: &Arc<Link>, attempts: &Arc<Attempts>, message: u64) -> (Self, Confirmation<()>) {
        let (confirmer, confirmation) = Confirmation::pending();
        let (sender, noted) = oneshot::channel();
        let (link, attempts) = (Arc::clone(link), Arc::clone(attempts));
        attempts.begin_trial(message);
        let (to, noting) = (Arc::clone(&link), Arc::clone(&attempts));
        link.record(async move {
            let (is_noted, answer) = noting.note(&to, message).await;
            // An error means that the handle is gone, and with it the runtime.
            let _ = sender.send(is_noted);
            confirmer.confirm(answer);
        });
        let noted = Some(noted);
        (Self { link, attempts, message, noted, is_over: false, is_settled: false }, confirmation)
    }

    /// Withdraws the note of a message that goes back to its group: its next consumer must not find
    /// it. A failed attempt is written with it.
    pub(crate) async fn end(mut self, failed: Option<u32>) {
        if let Some(noted) = &mut self.noted {
            self.is_over = !is_noted(noted).await;
            self.noted = None;
        }
        match (self.is_over, failed) {
            (true, Some(failed)) => self.attempts.keep(&self.link, self.message, failed).await,
            (true, None) => {}
            // If this fails, dropping the trial does the rest.
            (false, _) => self.is_over = self.attempts.withdraw(&self.link, self.message, failed).await.is_ok(),
        }
    }

    /// Ends the trial of a message that is settled for good, whose record is deleted.
    pub(crate) fn settle(mut self) {
        self.is_settled = true;
    }
}

async fn is_noted(noted: &mut oneshot::Receiver<bool>) -> bool {
    // A note that is given up may be at the server.
    noted.await.unwrap_or(true)
}

impl Drop for Trial {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (link, attempts) = (Arc::downgrade(&self.link), Arc::clone(&self.attempts));
        let (message, noted, is_settled) = (self.message, self.noted.take(), self.is_settled);
        self.link.record(async move {
            if let Some(mut noted) = noted
                && !is_noted(&mut noted).await
            {
                return;
            }
            withdraw(link, &attempts, message, is_settled).await;
        });
    }
}

/// Withdraws a note over this connection or a later one, as long as the broker is in use.
async fn withdraw(link: Weak<Link>, attempts: &Attempts, message: u64, is_settled: bool) {
    let begun = Instant::now();
    while let Some(link) = link.upgrade() {
        let withdrawn = match is_settled {
            true => attempts.erase(&link, message).await,
            false => attempts.withdraw(&link, message, None).await,
        };
        let Err(error) = withdrawn else { return };
        if begun.elapsed() > GIVE_UP {
            tracing::debug!(message, %error, "the note of a trial is not withdrawn, and counts as a lost one");
            return;
        }
        drop(link);
        sleep(AGAIN).await;
    }
}

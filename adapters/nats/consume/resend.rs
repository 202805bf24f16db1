//! Settlements on their way: sent, sent again over the next line, and known to be processed.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use tokio::time::{Instant, timeout};

use crate::driver::{Confirmation, Confirmer, Disposition};

use super::super::connection::replies::{Again, Resend, Settlement};
use super::super::error;
use super::session::{Session, payload};

impl Session {
    /// Settles a delivery. `until` is the end of the time in which it may be repeated.
    pub(super) fn tell(
        self: &Arc<Self>,
        reply: Subject,
        disposition: Disposition,
        until: Option<Instant>,
    ) -> Confirmation<()> {
        let payload = payload(disposition);
        // A message that goes back may be another member's at once.
        let until = until.filter(|_| matches!(disposition, Disposition::Ack | Disposition::Discard));
        let settlement = until.map(|until| Settlement { subject: reply.clone(), payload: payload.clone(), until });
        if self.confirm {
            return self.link.confirm_again(reply, payload, settlement.map(|settlement| self.again(settlement)));
        }
        // Before it is sent, or the next line might not find it.
        settlement.into_iter().for_each(|settlement| self.state.lock().unanswered.add(settlement));
        Confirmation::ready(self.link.tell(reply, payload))
    }

    fn again(self: &Arc<Self>, settlement: Settlement) -> Again {
        Again { sender: Arc::<Self>::clone(self), line: *self.lines.borrow(), settlement }
    }

    /// Asks the server if it has processed what was sent, so that no more needs to be remembered.
    pub(super) fn ask_for_answers(self: &Arc<Self>, number: Option<u64>) {
        let Some(number) = number else { return };
        let session = Arc::downgrade(self);
        let (link, stream, name) = (Arc::clone(&self.link), self.consumer.stream.clone(), self.consumer.name.clone());
        self.link.background().detach(async move {
            let is_processed = link.processed(&stream, &name).await.is_ok();
            if let Some(session) = session.upgrade() {
                session.state.lock().unanswered.answer(number, is_processed);
            }
        });
    }

    /// Sends again what may have been lost with the last line.
    pub(super) fn repeat_unanswered(&self) {
        let unanswered = self.state.lock().unanswered.take();
        let now = Instant::now();
        for settlement in unanswered.into_iter().filter(|settlement| settlement.until > now) {
            let _ = self.link.tell(settlement.subject.clone(), settlement.payload.clone());
            self.state.lock().unanswered.add(settlement);
        }
    }

    /// Waits for the line after this one, at most for so long. Returns `false` if there is none.
    pub(super) async fn has_next_line(&self, line: Option<u64>, patience: Duration) -> bool {
        let mut lines = self.lines.subscribe();
        let next = lines.wait_for(|next| next.is_none() || *next != line);
        matches!(timeout(patience, next).await, Ok(Ok(next)) if next.is_some())
    }
}

impl Resend for Session {
    fn resend(self: Arc<Self>, line: Option<u64>, settlement: Settlement, confirmer: Confirmer<()>) {
        let session = Arc::clone(&self);
        self.link.record(async move {
            let patience = settlement.until.saturating_duration_since(Instant::now());
            let is_restored = session.has_next_line(line, patience).await;
            if !is_restored || Instant::now() >= settlement.until {
                return confirmer.confirm(Err(error::settlement_lost()));
            }
            let (subject, payload) = (settlement.subject.clone(), settlement.payload.clone());
            let again = Some(session.again(settlement));
            confirmer.confirm(session.link.confirm_again(subject, payload, again).await);
        });
    }
}

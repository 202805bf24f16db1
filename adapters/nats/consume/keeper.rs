//! Keeps unsettled deliveries from being redelivered, and notices when they are lost.
//!
//! This runs on the thread of the clients, so that it goes on while handlers block the threads of
//! the application, and while the subscription is not polled.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::Subject;
use tokio::time::{Instant, sleep};

use crate::error::ErrorKind;

use super::session::{HEARTBEAT, Session};
use crate::adapters::nats::connection::api;

/// Maximum time until a lost connection is noticed.
const LOOK: Duration = Duration::from_millis(200);

/// Interval at which the server is asked how far the group is. Only if the group is deleted does it
/// matter: what came later comes again.
const ASK: Duration = Duration::from_secs(30);

/// Keeps the deliveries of a session, for as long as it exists.
pub(crate) fn start(session: &Arc<Session>) {
    session.link.background().detach(keep(Arc::downgrade(session), period(session.consumer.ack_wait)));
}

/// Returns a quarter of the time that the server waits. The first extension is sent after one to
/// two periods, which leaves half of the time for it to be late.
fn period(ack_wait: Duration) -> Duration {
    (ack_wait / 4).clamp(Duration::from_millis(20), HEARTBEAT)
}

async fn keep(session: Weak<Session>, period: Duration) {
    let (mut round, mut asked) = (Instant::now(), Instant::now());
    loop {
        sleep(period.min(LOOK)).await;
        let Some(session) = session.upgrade().filter(|session| session.look()) else {
            return;
        };
        if asked.elapsed() >= ASK {
            asked = Instant::now();
            session.link.background().detach(ask(Arc::downgrade(&session)));
        }
        if round.elapsed() >= period {
            round = Instant::now();
            let (one, late) = session.renew();
            if late > 0 {
                let consumer = session.consumer.name.as_str();
                tracing::warn!(consumer, late, "deliveries were not renewed within ack_wait; they are redelivered");
            }
            if let Some(one) = one {
                session.link.background().detach(check(Arc::downgrade(&session), one));
            }
        }
    }
}

async fn ask(session: Weak<Session>) {
    if let Some(session) = session.upgrade()
        && let Ok(info) = api::consumer(&session.link, &session.consumer.stream, &session.consumer.name).await
    {
        session.learn(&info);
    }
}

/// Asks for an answer to a renewal: if there is none to give it, the consumer may have been
/// deleted. While messages are requested the server says so by itself, but not to a member that is
/// busy.
async fn check(session: Weak<Session>, reply: Subject) {
    let Some(confirmation) = session.upgrade().map(|session| session.link.confirm(reply, "+WPI".into())) else {
        return;
    };
    if !confirmation.await.is_err_and(|error| error.kind() == ErrorKind::SettlementLost) {
        return;
    }
    let Some(session) = session.upgrade() else {
        return;
    };
    let consumer = &session.consumer;
    let is_gone = match api::consumer(&session.link, &consumer.stream, &consumer.name).await {
        Ok(found) => found.created != consumer.created,
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    if is_gone {
        session.lose_consumer();
    }
}

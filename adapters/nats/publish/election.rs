//! Waits for the leader of a stream on behalf of messages that were refused without one.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::error::Result;
use crate::message::Topic;

use super::super::connection::elections::no_leader;
use super::super::connection::link::Link;
use super::send_now;
use crate::adapters::nats::connection::api;
use crate::adapters::nats::topology::names;

/// First and longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// Maximum wait for the answer to an attempt, before the next message is tried.
const ANSWERED: Duration = Duration::from_secs(1);
/// Interval of the looks for an answer to an attempt.
const LOOK: Duration = Duration::from_millis(5);
/// Maximum wait for the server to name the stream.
const NAMED: Duration = Duration::from_secs(1);

/// Has the topics of a connection wait for their leaders.
pub(crate) fn start(link: &Arc<Link>) {
    let waiting = Arc::downgrade(link);
    link.elections().on_begin(move |topic| {
        if let Some(link) = waiting.upgrade() {
            link.background().detach(wait(Arc::downgrade(&link), topic.clone()));
        }
    });
}

async fn wait(waiting: Weak<Link>, topic: Topic) {
    let (mut pause, longest) = PAUSES;
    loop {
        sleep(pause).await;
        pause = (pause * 2).min(longest);
        let Some(link) = waiting.upgrade() else { return };
        if !link.health().is_connected() {
            // As all publishes while the connection is down.
            return link.elections().end(&topic, |publish| publish.confirmer.confirm(Err(link.disconnected())));
        }
        if let Ok(Ok(false)) = timeout(NAMED, has_stream(&link, &topic)).await {
            let gone = |publish: super::Publish| publish.confirmer.give_back(publish.message, no_leader());
            return link.elections().end(&topic, gone);
        }
        let Some(first) = link.elections().first(&topic) else { return };
        // Once it is answered, all refusals of earlier ones have come: the server that refuses is
        // the one that this connection leads to. Those that it does not answer may be lost.
        let number = send_now(&link, first);
        let answered = async {
            while number.is_some_and(|number| link.awaits(number)) {
                sleep(LOOK).await;
            }
        };
        let is_answered = timeout(ANSWERED, answered).await.is_ok();
        if is_answered && !link.elections().was_refused(&topic) {
            return link.elections().end(&topic, |publish| {
                let _ = send_now(&link, publish);
            });
        }
    }
}

/// Returns `false` if the stream was deleted. The leader of the cluster knows, not that of the
/// stream.
async fn has_stream(link: &Link, topic: &Topic) -> Result<bool> {
    api::stream_of(link, &names::subject(topic)).await.map(|stream| stream.is_some())
}

//! A broker that is used in several tokio runtimes, some of which have ended.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use traced_broker::{Message, TracedBroker as _, connect};

use crate::history::Event;
use crate::recorder::Recorder;
use crate::scenario::{Broker, Scenario};
use crate::site::Site;

/// Maximum duration of each operation. The publish has an error or an answer within it.
const SOON: Duration = Duration::from_secs(8);
/// A hang depends on the order in which tasks end: the attempt is repeated.
const ROUNDS: usize = 4;

/// Makes a broker in one runtime, uses it in a second one, ends the first, and uses it again.
///
/// # Errors
/// The reason for which that could not be tried.
pub(crate) async fn run(broker: Broker, recorder: &Recorder) -> Result<(), String> {
    let site = Site::start(broker, Scenario::Runtimes, 0, recorder).await?;
    for round in 0..ROUNDS {
        let (url, recorder) = (site.url.clone(), recorder.clone());
        let topic = format!("chaos-{round}");
        let tried = tokio::task::spawn_blocking(move || attempt(&url, &topic, &recorder));
        tried.await.map_err(|error| error.to_string())??;
    }
    site.end().await;
    Ok(())
}

fn attempt(url: &str, topic: &str, recorder: &Recorder) -> Result<(), String> {
    let (first, second) = (runtime()?, runtime()?);
    let broker = first.block_on(connect(url)).map_err(|error| error.to_string())?;
    let publish = |runtime: &Runtime, topic: &str, when: &str| {
        let answered = runtime.block_on(async { timeout(SOON, broker.publish(topic, Message::new("any"))).await });
        match &answered {
            Ok(Err(error)) => recorder.note(Event::Trouble { group: topic.to_owned(), why: error.to_string() }),
            Ok(Ok(_)) => {}
            Err(_) => {
                recorder.note(Event::Stuck { what: format!("a publish {when} had no answer in {SOON:?}") });
            }
        }
        answered.is_ok_and(|answer| answer.is_ok())
    };
    for (runtime, when) in [(&first, "where the broker was made"), (&second, "in another runtime")] {
        if !publish(runtime, topic, when) {
            recorder.note(Event::Stuck { what: format!("a publish {when} failed, and both runtimes live") });
        }
    }
    drop(first);
    // These may fail: tasks of the broker have ended. They may not hang.
    for topic in [topic, &format!("{topic}-new"), topic] {
        publish(&second, topic, "after the runtime of the broker had ended");
    }
    if second.block_on(async { timeout(2 * SOON, broker.close()).await }).is_err() {
        recorder.note(Event::Stuck { what: format!("close did not end within {:?}", 2 * SOON) });
    }
    second.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

fn runtime() -> Result<Runtime, String> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|error| error.to_string())
}

//! Log messages about contexts that were not used.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use traced_broker::driver::{DriverExt, Outbound};
use traced_broker::{Topic, TracedBroker};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::scene::{Scene, group, process};

/// Counts warnings of the library.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() == Level::WARN && metadata.target().starts_with("traced_broker") {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A foreign producer could do this with every message, and must not be able to flood the log.
#[tokio::test]
async fn each_kind_of_refused_header_is_logged_once() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(warnings.clone()));
    let scene = Scene::new();
    let mut deliveries = scene.broker.subscribe(group("t")).await.unwrap();
    for value in ["00-zz", "00-zz", "garbage", &"0".repeat(55), "00-zz"] {
        let mut foreign = Outbound::new("x");
        foreign.headers.append("traceparent", value);
        scene.broker.get_ref().enqueue(&Topic::new("t").unwrap(), foreign).await.unwrap();
        process(&mut deliveries).await;
    }
    assert_eq!(warnings.0.load(Ordering::Relaxed), 2, "one of a wrong length, one of a wrong delimiter");
}

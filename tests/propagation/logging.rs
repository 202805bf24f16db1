//! Log messages about contexts that were not used.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use traced_broker::driver::{DriverExt, Outbound};
use traced_broker::{Message, Topic, TracedBroker};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::scene::{Scene, group, next, process};

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

/// Keeps the warnings of the library, as `name=value` in the order of the fields.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() == Level::WARN && metadata.target().starts_with("traced_broker") {
            let mut line = Line(String::new());
            event.record(&mut line);
            self.0.lock().push(line.0);
        }
    }
}

/// One line tells of the first, and further ones are counted.
#[tokio::test(start_paused = true)]
async fn what_is_discarded_is_logged() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
    let scene = Scene::new();
    let mut deliveries = scene.broker.subscribe(group("t")).await.unwrap();
    for number in 0..5 {
        scene.broker.publish("t", Message::new("x").id(format!("order-{number}"))).await.unwrap();
        if number == 4 {
            tokio::time::advance(std::time::Duration::from_secs(6)).await;
        }
        next(&mut deliveries).await.reject("sold out").await.unwrap();
    }
    let lines = lines.0.lock();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for part in ["topic=t ", "id=\"order-0\" ", "attempts=1 ", "reason=\"sold out\" ", "not_logged=0 "] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    assert!(lines[1].contains("not_logged=3 "), "{}", lines[1]);
}

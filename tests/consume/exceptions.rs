//! Failures of handlers in the logs.

use std::io;
use std::sync::Arc;

use futures_util::StreamExt as _;
use parking_lot::Mutex;

use traced_broker::adapters::memory::Memory;
use traced_broker::{HandlerError, Message, Subscription, Traced, TracedBroker};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_failed_handler_is_logged_as_an_exception_and_filtered_by_its_target() {
    for (filter, expected) in [("error", 1), ("error,traced_broker::exception=off", 0)] {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let _logging = tracing::subscriber::set_default(subscriber);
        let broker = Traced::new(Memory::new());
        let mut orders = broker.subscribe(Subscription::new("orders").group("workers")).await.unwrap();
        broker.publish("orders", Message::new("shoes")).await.unwrap();
        let failing = async |_| Err::<(), _>(HandlerError::reject("no left shoe"));
        orders.next().await.unwrap().unwrap().process(failing).await.unwrap();
        let lines = String::from_utf8(lines.0.lock().clone()).unwrap();
        let told = "traced_broker::exception: a handler failed";
        assert_eq!(lines.matches(told).count(), expected, "{lines}");
        let whole = lines.contains("exception.type=\"handler_error\" exception.message=\"no left shoe\"");
        assert_eq!(whole, expected == 1, "{lines}");
    }
}

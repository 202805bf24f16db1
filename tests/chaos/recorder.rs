//! Takes down the history of a run.

use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::history::{Event, Record};

/// The one writer of a process; clones write to the same history.
#[derive(Debug, Clone)]
pub(crate) struct Recorder(Arc<Sink>);

#[derive(Debug)]
enum Sink {
    Memory(Mutex<Vec<Record>>),
    /// Lines on standard output, each written at once: this process may be killed.
    Lines,
}

impl Recorder {
    pub(crate) fn in_memory() -> Self {
        Self(Arc::new(Sink::Memory(Mutex::default())))
    }

    pub(crate) fn on_standard_output() -> Self {
        Self(Arc::new(Sink::Lines))
    }

    /// Adds an event that happens now.
    pub(crate) fn note(&self, event: Event) {
        match &*self.0 {
            // The time is taken under the lock, so that the order in memory is that of the times.
            Sink::Memory(records) => {
                let mut records = records.lock();
                records.push(Record::now(event));
            }
            Sink::Lines => {
                let mut line = serde_json::to_vec(&Record::now(event)).expect("plain data");
                line.push(b'\n');
                // The reader may be gone.
                let mut out = io::stdout().lock();
                let _ = out.write_all(&line).and_then(|()| out.flush());
            }
        }
    }

    /// Adds a line that another process wrote. The last one of a killed process may be incomplete.
    pub(crate) fn read(&self, line: &str) {
        if let (Sink::Memory(records), Ok(record)) = (&*self.0, serde_json::from_str(line)) {
            records.lock().push(record);
        }
    }

    /// Returns the number of events until now.
    pub(crate) fn len(&self) -> usize {
        match &*self.0 {
            Sink::Memory(records) => records.lock().len(),
            Sink::Lines => 0,
        }
    }

    /// Returns the history until now.
    pub(crate) fn snapshot(&self) -> Vec<Record> {
        match &*self.0 {
            Sink::Memory(records) => records.lock().clone(),
            Sink::Lines => Vec::new(),
        }
    }
}

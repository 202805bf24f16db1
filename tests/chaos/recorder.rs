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
    Memory(Mutex<Taken>),
    /// Lines on standard output, each written at once: this process may be killed.
    Lines,
}

/// The history until now.
#[derive(Debug, Default)]
struct Taken {
    records: Vec<Record>,
    /// The number of publishes.
    attempted: usize,
    /// The index of the last fault; 0 if there was none.
    last_fault: usize,
}

impl Taken {
    fn push(&mut self, record: Record) {
        match record.event {
            Event::Attempted { .. } => self.attempted += 1,
            Event::Fault { .. } | Event::Deleted { .. } | Event::Died { .. } => self.last_fault = self.records.len(),
            _ => {}
        }
        self.records.push(record);
    }
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
            Sink::Memory(taken) => {
                let mut taken = taken.lock();
                taken.push(Record::now(event));
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
        if let (Sink::Memory(taken), Ok(record)) = (&*self.0, serde_json::from_str(line)) {
            taken.lock().push(record);
        }
    }

    /// Returns the number of events until now.
    pub(crate) fn len(&self) -> usize {
        self.ask(|taken| taken.records.len())
    }

    /// Returns the number of publishes until now.
    pub(crate) fn attempted(&self) -> usize {
        self.ask(|taken| taken.attempted)
    }

    /// Returns the history until now.
    pub(crate) fn snapshot(&self) -> Vec<Record> {
        self.ask(|taken| taken.records.clone())
    }

    /// Returns the history from the last fault until now.
    pub(crate) fn since_last_fault(&self) -> Vec<Record> {
        self.ask(|taken| taken.records[taken.last_fault..].to_vec())
    }

    /// Returns nothing if the history is not in memory.
    fn ask<T: Default>(&self, question: impl FnOnce(&Taken) -> T) -> T {
        match &*self.0 {
            Sink::Memory(taken) => question(&taken.lock()),
            Sink::Lines => T::default(),
        }
    }
}

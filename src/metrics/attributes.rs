//! The attributes of measurements: made once for a destination, and once for each partition of it.

use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry::KeyValue;
use parking_lot::RwLock;

/// How many partitions of a destination have their attributes kept.
const MAX_PARTITIONS: usize = 4096;

/// What all measurements of one operation at one destination have in common.
#[derive(Debug)]
pub(crate) struct MetricAttributes {
    base: Arc<[KeyValue]>,
    by_partition: RwLock<HashMap<i32, Arc<[KeyValue]>>>,
}

impl MetricAttributes {
    pub(crate) fn new(base: impl IntoIterator<Item = KeyValue>) -> Self {
        Self { base: base.into_iter().collect(), by_partition: RwLock::default() }
    }

    /// The attributes of what happened at a partition, or where there is none.
    pub(crate) fn at(&self, partition: Option<i32>) -> Arc<[KeyValue]> {
        let Some(partition) = partition else { return Arc::clone(&self.base) };
        if let Some(made) = self.by_partition.read().get(&partition) {
            return Arc::clone(made);
        }
        let made = with(&self.base, [KeyValue::new("messaging.destination.partition.id", partition.to_string())]);
        let mut kept = self.by_partition.write();
        if kept.len() < MAX_PARTITIONS {
            kept.insert(partition, Arc::clone(&made));
        }
        made
    }

    /// The same, of what failed.
    pub(crate) fn of(&self, partition: Option<i32>, error_type: Option<&'static str>) -> Arc<[KeyValue]> {
        let attributes = self.at(partition);
        match error_type {
            Some(error_type) => with(&attributes, [KeyValue::new("error.type", error_type)]),
            None => attributes,
        }
    }
}

/// Attributes and some more.
pub(crate) fn with<const N: usize>(base: &[KeyValue], more: [KeyValue; N]) -> Arc<[KeyValue]> {
    base.iter().cloned().chain(more).collect()
}

//! The attributes of measurements: created once per destination, and once for each of its
//! partitions.

use crate::names::attribute;
use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry::KeyValue;
use parking_lot::RwLock;

/// Maximum number of partitions of a destination whose attributes are kept.
const MAX_PARTITIONS: usize = 4096;

/// The attributes that all measurements of one operation at one destination share.
#[derive(Debug)]
pub(crate) struct MetricAttributes {
    base: Arc<[KeyValue]>,
    by_partition: RwLock<HashMap<i32, Arc<[KeyValue]>>>,
}

impl MetricAttributes {
    pub(crate) fn new(base: impl IntoIterator<Item = KeyValue>) -> Self {
        Self { base: base.into_iter().collect(), by_partition: RwLock::default() }
    }

    /// Returns the attributes of an operation at a partition, or of one without a partition.
    pub(crate) fn at(&self, partition: Option<i32>) -> Arc<[KeyValue]> {
        let Some(partition) = partition else { return Arc::clone(&self.base) };
        if let Some(made) = self.by_partition.read().get(&partition) {
            return Arc::clone(made);
        }
        let made = with(&self.base, [KeyValue::new(attribute::DESTINATION_PARTITION_ID, partition.to_string())]);
        let mut kept = self.by_partition.write();
        if kept.len() < MAX_PARTITIONS {
            kept.insert(partition, Arc::clone(&made));
        }
        made
    }

    /// Like [`at`](Self::at), with the error type of an operation that failed.
    pub(crate) fn of(&self, partition: Option<i32>, error_type: Option<&'static str>) -> Arc<[KeyValue]> {
        let attributes = self.at(partition);
        match error_type {
            Some(error_type) => with(&attributes, [KeyValue::new(attribute::ERROR_TYPE, error_type)]),
            None => attributes,
        }
    }
}

/// Returns the attributes with `more` appended.
pub(crate) fn with(base: &[KeyValue], more: impl IntoIterator<Item = KeyValue>) -> Arc<[KeyValue]> {
    base.iter().cloned().chain(more).collect()
}

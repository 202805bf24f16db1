//! Every metric of this library: the four that the conventions require of messaging clients, and ours.

use super::{Instrument, Metric};
use crate::metrics::{CONTEXT_HEADER, CONTEXT_REASON, CONTEXT_REJECTED, QUEUE_BUCKETS, QUEUE_SKEWED};
use crate::span::{HOP, QUEUE_CLOCK, QUEUE_DURATION};

/// The boundaries that the conventions advise, in seconds ("Common metrics").
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// All of them.
pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "messaging.client.operation.duration",
        instrument: Instrument::Histogram,
        unit: "s",
        buckets: SECONDS,
        attributes: &[
            ("messaging.system", true),
            ("messaging.operation.name", true),
            ("messaging.operation.type", true),
            ("messaging.destination.name", true),
            ("messaging.destination.template", false),
            ("messaging.destination.partition.id", false),
            ("messaging.consumer.group.name", false),
            ("server.address", false),
            ("server.port", false),
            ("error.type", false),
        ],
        ours: false,
    },
    Metric {
        name: "messaging.process.duration",
        instrument: Instrument::Histogram,
        unit: "s",
        buckets: SECONDS,
        attributes: &[
            ("messaging.system", true),
            ("messaging.operation.name", true),
            ("messaging.destination.name", true),
            ("messaging.destination.template", false),
            ("messaging.destination.partition.id", false),
            ("messaging.consumer.group.name", false),
            ("server.address", false),
            ("server.port", false),
            ("error.type", false),
        ],
        ours: false,
    },
    Metric {
        name: "messaging.client.sent.messages",
        instrument: Instrument::Counter,
        unit: "{message}",
        buckets: &[],
        attributes: &[
            ("messaging.system", true),
            ("messaging.operation.name", true),
            ("messaging.destination.name", true),
            ("messaging.destination.template", false),
            ("messaging.destination.partition.id", false),
            ("server.address", false),
            ("server.port", false),
            ("error.type", false),
        ],
        ours: false,
    },
    Metric {
        name: "messaging.client.consumed.messages",
        instrument: Instrument::Counter,
        unit: "{message}",
        buckets: &[],
        attributes: &[
            ("messaging.system", true),
            ("messaging.operation.name", true),
            ("messaging.destination.name", true),
            ("messaging.destination.template", false),
            ("messaging.destination.partition.id", false),
            ("messaging.consumer.group.name", false),
            ("server.address", false),
            ("server.port", false),
            ("error.type", false),
        ],
        ours: false,
    },
    Metric {
        name: QUEUE_DURATION,
        instrument: Instrument::Histogram,
        unit: "s",
        buckets: &QUEUE_BUCKETS,
        attributes: QUEUED,
        ours: true,
    },
    Metric {
        name: QUEUE_SKEWED,
        instrument: Instrument::Counter,
        unit: "{message}",
        buckets: &[],
        attributes: QUEUED,
        ours: true,
    },
    Metric {
        name: CONTEXT_REJECTED,
        instrument: Instrument::Counter,
        unit: "{header}",
        buckets: &[],
        attributes: &[
            ("messaging.system", true),
            ("messaging.operation.name", true),
            ("messaging.destination.name", true),
            ("messaging.destination.template", false),
            ("messaging.consumer.group.name", false),
            ("server.address", false),
            ("server.port", false),
            (CONTEXT_HEADER, true),
            (CONTEXT_REASON, true),
        ],
        ours: true,
    },
];

/// What is measured of the time in the queue is measured by.
const QUEUED: &[(&str, bool)] = &[
    ("messaging.system", true),
    ("messaging.operation.name", true),
    ("messaging.destination.name", true),
    ("messaging.destination.template", false),
    ("messaging.destination.partition.id", false),
    ("messaging.consumer.group.name", false),
    ("server.address", false),
    ("server.port", false),
    (QUEUE_CLOCK, true),
    (HOP, false),
];

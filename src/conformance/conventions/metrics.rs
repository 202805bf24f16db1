//! Every metric of this library with the attributes of its points: the four that the conventions
//! require of messaging clients, and our own. Name, unit and buckets are those of
//! [`names`](crate::names).

use crate::conformance::conventions::Metric;
use crate::names::attribute::{
    CONSUMER_GROUP_NAME, CONTEXT_HEADER, CONTEXT_REASON, DESTINATION_NAME, DESTINATION_PARTITION_ID,
    DESTINATION_TEMPLATE, ERROR_TYPE, HOP, OPERATION_NAME, OPERATION_TYPE, QUEUE_CLOCK, SERVER_ADDRESS, SERVER_PORT,
    SYSTEM, WAITING_REASON,
};
use crate::names::metric;

/// An attribute, and `true` if it is required.
type Listed = (&'static str, bool);

/// The attributes of every metric.
const ALWAYS: &[Listed] = &[
    (SYSTEM, true),
    (OPERATION_NAME, true),
    (DESTINATION_NAME, true),
    (DESTINATION_TEMPLATE, false),
    (SERVER_ADDRESS, false),
    (SERVER_PORT, false),
];
const PARTITION: &[Listed] = &[(DESTINATION_PARTITION_ID, false)];
const GROUP: &[Listed] = &[(CONSUMER_GROUP_NAME, false)];
const ERROR: &[Listed] = &[(ERROR_TYPE, false)];
const OPERATION: &[Listed] = &[(OPERATION_TYPE, true)];
const QUEUE: &[Listed] = &[(QUEUE_CLOCK, true), (HOP, false)];
const WAITING: &[Listed] = &[(WAITING_REASON, true)];
const CONTEXT: &[Listed] = &[(CONTEXT_HEADER, true), (CONTEXT_REASON, true)];

const fn conventional(facts: metric::Metric, attributes: &'static [&'static [Listed]]) -> Metric {
    Metric { facts, attributes, ours: false }
}

const fn ours(facts: metric::Metric, attributes: &'static [&'static [Listed]]) -> Metric {
    Metric { facts, attributes, ours: true }
}

/// All metrics.
pub(super) const METRICS: &[Metric] = &[
    conventional(metric::OPERATION_DURATION, &[ALWAYS, PARTITION, GROUP, ERROR, OPERATION]),
    conventional(metric::PROCESS_DURATION, &[ALWAYS, PARTITION, GROUP, ERROR]),
    conventional(metric::SENT_MESSAGES, &[ALWAYS, PARTITION, ERROR]),
    conventional(metric::CONSUMED_MESSAGES, &[ALWAYS, PARTITION, GROUP, ERROR]),
    ours(metric::QUEUE_DURATION, &[ALWAYS, PARTITION, GROUP, QUEUE]),
    ours(metric::WAIT_DURATION, &[ALWAYS, PARTITION, GROUP]),
    ours(metric::QUEUE_SKEWED, &[ALWAYS, PARTITION, GROUP, QUEUE]),
    ours(metric::CONTEXT_REJECTED, &[ALWAYS, GROUP, CONTEXT]),
    ours(metric::DISCARDED, &[ALWAYS, PARTITION, GROUP, ERROR]),
    ours(metric::UNROUTABLE, &[ALWAYS]),
    ours(metric::WAITING, &[ALWAYS, GROUP, WAITING]),
];

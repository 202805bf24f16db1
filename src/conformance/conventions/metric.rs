//! The check of one exported metric against the tables.

use super::attributes::Attribute;
use super::metrics::METRICS;
use crate::conformance::conventions::Metric;
use crate::conformance::measurements::{Measured, Point};
use crate::driver::Identity;

/// Returns a description of each violation; empty for a metric that is not this library's.
pub(in crate::conformance) fn check_metric(measured: &Measured, identity: &Identity) -> Vec<String> {
    if measured.scope != env!("CARGO_PKG_NAME") {
        return Vec::new();
    }
    let Some(metric) = METRICS.iter().find(|metric| metric.facts.name == measured.name) else {
        return vec![format!("{} is in the conventions or in our registry", measured.name)];
    };
    let mut complaints = Vec::new();
    let mut require = |holds: bool, required: String| {
        if !holds {
            complaints.push(format!("{}: {required}", metric.facts.name));
        }
    };
    let histogram = metric.is_histogram();
    require(measured.is_histogram == histogram, format!("it is a {}", metric.facts.instrument));
    require(measured.unit == metric.facts.unit, format!("its unit is {}: {}", metric.facts.unit, measured.unit));
    for point in &measured.points {
        require(
            point.bounds == metric.facts.buckets,
            format!("its buckets are {:?}: {:?}", metric.facts.buckets, point.bounds),
        );
        require(point.sum >= 0.0 && point.count > 0, "it has values, and its sum is not negative".to_owned());
        check_point(metric, point, identity, &mut require);
    }
    complaints
}

fn check_point(metric: &Metric, point: &Point, identity: &Identity, require: &mut impl FnMut(bool, String)) {
    for (name, value) in &point.attributes {
        require(metric.attributes().any(|(known, _)| known == name), format!("{name} does not belong to it"));
        if let Some(known) = Attribute::find(name) {
            require(known.kind.is_of(value), format!("{name} is of the type {:?}: {value:?}", known.kind));
            let listed = known.values.is_empty() || known.values.contains(&&*value.as_str());
            require(listed, format!("{name} is one of {:?}: {value}", known.values));
        }
    }
    for (name, required) in metric.attributes() {
        require(!required || point.attributes.contains_key(*name), format!("{name} is there"));
    }
    require(point.text("messaging.system") == identity.system, format!("the system is {}", identity.system));
    for (name, known) in
        [("server.address", identity.server_address.is_some()), ("server.port", identity.server_port.is_some())]
    {
        require(point.attributes.contains_key(name) == known, format!("{name} is there if the driver knows it"));
    }
}

//! One exported metric, held to the tables.

use super::attributes::Attribute;
use super::metrics::METRICS;
use super::{Instrument, Metric};
use crate::conformance::measurements::{Measured, Point};
use crate::driver::Identity;

/// What is wrong with a metric, each finding in words; nothing for one that is not this library's.
pub(in crate::conformance) fn check_metric(measured: &Measured, identity: &Identity) -> Vec<String> {
    if measured.scope != env!("CARGO_PKG_NAME") {
        return Vec::new();
    }
    let Some(metric) = METRICS.iter().find(|metric| metric.name == measured.name) else {
        return vec![format!("{} is in the conventions or in our registry", measured.name)];
    };
    let mut complaints = Vec::new();
    let mut require = |holds: bool, required: String| {
        if !holds {
            complaints.push(format!("{}: {required}", metric.name));
        }
    };
    let histogram = metric.instrument == Instrument::Histogram;
    require(measured.is_histogram == histogram, format!("it is a {:?}", metric.instrument));
    require(measured.unit == metric.unit, format!("its unit is {}: {}", metric.unit, measured.unit));
    for point in &measured.points {
        require(point.bounds == metric.buckets, format!("its buckets are {:?}: {:?}", metric.buckets, point.bounds));
        require(point.sum >= 0.0 && point.count > 0, "it is of something, and not negative".to_owned());
        check_point(metric, point, identity, &mut require);
    }
    complaints
}

fn check_point(metric: &Metric, point: &Point, identity: &Identity, require: &mut impl FnMut(bool, String)) {
    for (name, value) in &point.attributes {
        require(metric.attributes.iter().any(|(known, _)| known == name), format!("{name} does not belong to it"));
        if let Some(known) = Attribute::find(name) {
            require(known.kind.is_of(value), format!("{name} is of the type {:?}: {value:?}", known.kind));
            let listed = known.values.is_empty() || known.values.contains(&&*value.as_str());
            require(listed, format!("{name} is one of {:?}: {value}", known.values));
        }
    }
    for (name, required) in metric.attributes {
        require(!required || point.attributes.contains_key(*name), format!("{name} is there"));
    }
    require(point.text("messaging.system") == identity.system, format!("the system is {}", identity.system));
    for (name, known) in
        [("server.address", identity.server_address.is_some()), ("server.port", identity.server_port.is_some())]
    {
        require(point.attributes.contains_key(name) == known, format!("{name} is there if the driver knows it"));
    }
}

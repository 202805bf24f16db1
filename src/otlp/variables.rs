//! All variables, read and checked before anything starts.

use std::ffi::OsString;
use std::time::Duration;

use super::SERVICE_NAME;
use super::propagators::Propagators;
use super::values::{Values, invalid, unsupported};
use crate::error::Result;

/// Default maximum duration of an export: the specification's 10 seconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The settings that the SDK does not read from the variables by itself.
#[derive(Debug)]
pub(super) struct Variables {
    pub(super) disabled: bool,
    /// `true` if the environment names the service.
    pub(super) names_service: bool,
    pub(super) propagators: Propagators,
    /// Maximum duration of an export of spans; `None` if spans are not exported.
    pub(super) traces: Option<Duration>,
    /// Maximum duration of an export of measurements; `None` if they are not exported.
    pub(super) metrics: Option<Duration>,
}

/// The variables of one signal.
struct Signal {
    exporter: &'static str,
    endpoint: &'static str,
    headers: &'static str,
    timeout: &'static str,
    protocol: &'static str,
    compression: &'static str,
}

const TRACES: Signal = Signal {
    exporter: "OTEL_TRACES_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    headers: "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    timeout: "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    protocol: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    compression: "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
};

const METRICS: Signal = Signal {
    exporter: "OTEL_METRICS_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    headers: "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    timeout: "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
    protocol: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    compression: "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
};

impl Variables {
    /// Reads the variables through `lookup`. The SDK reads some of them again and uses its defaults
    /// for invalid ones, so they are checked here.
    pub(super) fn read(lookup: impl Fn(&'static str) -> Option<OsString>) -> Result<Self> {
        let values = Values(lookup);
        check_file(&values)?;
        let disabled = disabled(values.text("OTEL_SDK_DISABLED")?.as_deref());
        let propagators = match values.text("OTEL_PROPAGATORS")? {
            Some(list) => Propagators::parse(&list)?,
            None => Propagators::default(),
        };
        let attributes = values.pairs("OTEL_RESOURCE_ATTRIBUTES")?;
        let named = values.text("OTEL_SERVICE_NAME")?.is_some();
        let names_service = named || attributes.iter().any(|key| key == SERVICE_NAME);
        if disabled {
            return Ok(Self { disabled, names_service, propagators, traces: None, metrics: None });
        }
        check_sampler(&values)?;
        check_numbers(&values)?;
        let [traces, metrics] = [TRACES, METRICS].map(|signal| timeout(&values, &signal));
        Ok(Self { disabled, names_service, propagators, traces: traces?, metrics: metrics? })
    }
}

/// Refuses a configuration by file. The specification lets such a file replace all other variables,
/// so that going by them would be what nobody asked for.
fn check_file<F: Fn(&'static str) -> Option<OsString>>(values: &Values<F>) -> Result<()> {
    // The name that the specification used before it was stable.
    for name in ["OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE"] {
        if values.text(name)?.is_some() {
            return Err(unsupported(
                name,
                "a configuration file is not read: set the single variables, and unset this",
            ));
        }
    }
    Ok(())
}

/// Returns `true` for "true" only: "Any value that represents a Boolean MUST be set to true only by
/// the case-insensitive string "true"".
fn disabled(text: Option<&str>) -> bool {
    let disabled = text.is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if !disabled && text.is_some_and(|text| !text.eq_ignore_ascii_case("false")) {
        tracing::warn!(variable = "OTEL_SDK_DISABLED", "neither true nor false: treated as false");
    }
    disabled
}

/// Returns the maximum duration of an export of this signal; `None` if it is not exported.
fn timeout<F: Fn(&'static str) -> Option<OsString>>(values: &Values<F>, signal: &Signal) -> Result<Option<Duration>> {
    if values.one_of(signal.exporter, &["otlp", "none"])?.as_deref() == Some("none") {
        return Ok(None);
    }
    let or_for_all = |name, all| [name, all];
    values.first(or_for_all(signal.endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT"), Values::endpoint)?;
    for name in or_for_all(signal.headers, "OTEL_EXPORTER_OTLP_HEADERS") {
        check_headers(values, name)?;
    }
    let protocol = values.first(or_for_all(signal.protocol, "OTEL_EXPORTER_OTLP_PROTOCOL"), Values::text)?;
    if let Some((name, protocol)) = protocol {
        match protocol.as_str() {
            "http/protobuf" => {}
            "grpc" | "http/json" => return Err(unsupported(name, "only http/protobuf is built in; its port is 4318")),
            _ => return Err(invalid(name, "must be http/protobuf")),
        }
    }
    let compression = values.first(or_for_all(signal.compression, "OTEL_EXPORTER_OTLP_COMPRESSION"), Values::text)?;
    if let Some((name, compression)) = compression {
        match compression.as_str() {
            "none" | "gzip" => {}
            "zstd" => return Err(unsupported(name, "only gzip and none are built in")),
            _ => return Err(invalid(name, "must be gzip or none")),
        }
    }
    let timeout = values.first(or_for_all(signal.timeout, "OTEL_EXPORTER_OTLP_TIMEOUT"), Values::milliseconds)?;
    Ok(Some(timeout.map_or(TIMEOUT, |(_, timeout)| timeout)))
}

fn check_headers<F: Fn(&'static str) -> Option<OsString>>(values: &Values<F>, name: &'static str) -> Result<()> {
    for (index, header) in values.pairs(name)?.iter().enumerate() {
        if reqwest::header::HeaderName::from_bytes(header.as_bytes()).is_err() {
            return Err(invalid(name, format!("member {} has a name that is not a valid header name", index + 1)));
        }
    }
    Ok(())
}

fn check_sampler<F: Fn(&'static str) -> Option<OsString>>(values: &Values<F>) -> Result<()> {
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let Some(sampler) = values.text(SAMPLER)? else { return Ok(()) };
    match sampler.as_str() {
        "always_on" | "always_off" | "parentbased_always_on" | "parentbased_always_off" => Ok(()),
        "traceidratio" | "parentbased_traceidratio" => {
            let Some(text) = values.text(ARGUMENT)? else { return Ok(()) };
            let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            ratio.map(|_| ()).ok_or_else(|| invalid(ARGUMENT, "must be a number from 0 to 1"))
        }
        "jaeger_remote" | "parentbased_jaeger_remote" | "xray" => {
            Err(unsupported(SAMPLER, "the SDK has no such sampler"))
        }
        _ => Err(invalid(
            SAMPLER,
            "must be always_on, always_off or traceidratio, or one of these prefixed with parentbased_",
        )),
    }
}

/// Checks numbers that the SDK would ignore if they were invalid.
fn check_numbers<F: Fn(&'static str) -> Option<OsString>>(values: &Values<F>) -> Result<()> {
    for name in ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_METRIC_EXPORT_INTERVAL"] {
        values.positive(name)?;
    }
    let delays = ["OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT"];
    let limits = ["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT"];
    for name in delays.into_iter().chain(limits) {
        values.number(name)?;
    }
    let preference = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    values.one_of(preference, &["cumulative", "delta", "lowmemory"])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    fn read(set: &[(&'static str, &str)]) -> Result<Variables> {
        Variables::read(|name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| OsString::from(value)))
    }

    fn refused(name: &'static str, value: &str) -> Error {
        let error = read(&[(name, value), ("OTEL_TRACES_SAMPLER", "traceidratio")]).err();
        error.unwrap_or_else(|| panic!("{name}={value} is taken"))
    }

    #[test]
    fn nothing_is_set() {
        let variables = read(&[]).unwrap();
        assert!(!variables.disabled && !variables.names_service && variables.propagators.is_default());
        assert_eq!((variables.traces, variables.metrics), (Some(TIMEOUT), Some(TIMEOUT)));
    }

    #[test]
    fn a_variable_for_one_signal_comes_before_that_for_all() {
        let variables = read(&[
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_HEADERS", ""),
        ])
        .unwrap();
        assert_eq!(variables.traces, Some(Duration::from_millis(1500)));
        assert_eq!(variables.metrics, Some(Duration::from_millis(250)));
        let variables = read(&[("OTEL_TRACES_EXPORTER", "None"), ("OTEL_METRICS_EXPORTER", "otlp")]).unwrap();
        assert_eq!((variables.traces, variables.metrics), (None, Some(TIMEOUT)));
    }

    #[test]
    fn the_environment_names_the_service_in_either_way() {
        assert!(read(&[("OTEL_SERVICE_NAME", "shop")]).unwrap().names_service);
        assert!(read(&[("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name = shop")]).unwrap().names_service);
        assert!(!read(&[("OTEL_RESOURCE_ATTRIBUTES", "a=service.name")]).unwrap().names_service);
    }

    #[test]
    fn only_true_disables() {
        for (text, disabled) in [("TRUE", true), ("true", true), ("false", false), ("1", false), ("yes", false)] {
            assert_eq!(read(&[("OTEL_SDK_DISABLED", text)]).unwrap().disabled, disabled, "{text}");
        }
        // Unused variables are not checked; propagators still are.
        assert!(read(&[("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "::")]).is_ok());
        assert!(read(&[("OTEL_SDK_DISABLED", "true"), ("OTEL_PROPAGATORS", "x")]).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name_and_not_repeated() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://u:hunter2@host"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization: hunter2"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "a=b,hunter 2=c"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "=hunter2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s hunter2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "hunter2"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "hunter2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "hunter2"),
            ("OTEL_TRACES_EXPORTER", "hunter2"),
            ("OTEL_METRICS_EXPORTER", "otlp,none"),
            ("OTEL_TRACES_SAMPLER_ARG", "hunter2"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
            ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1.5"),
            ("OTEL_SPAN_LINK_COUNT_LIMIT", " 7"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "hunter2"),
            ("OTEL_PROPAGATORS", "tracecontext,hunter2"),
        ] {
            let error = refused(name, value);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
            assert_eq!(error.context().collect::<Vec<_>>(), [("variable", name)]);
            let said = format!("{error} {error:?}");
            assert!(said.contains(name) && !said.contains("hunter"), "{said}");
        }
        assert_eq!(read(&[("OTEL_TRACES_SAMPLER", "sometimes")]).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn what_is_not_there_is_told_from_what_makes_no_sense() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.test:4318"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_CONFIG_FILE", "/etc/otel.yaml"),
            ("OTEL_PROPAGATORS", "xray"),
            ("OTEL_PROPAGATORS", "b3,ottrace"),
        ] {
            let error = refused(name, value);
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().starts_with(name), "{error}");
        }
        let error = read(&[("OTEL_TRACES_SAMPLER", "jaeger_remote")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_text_is_refused() {
        use std::os::unix::ffi::OsStringExt as _;

        for name in ["OTEL_PROPAGATORS", "OTEL_BSP_SCHEDULE_DELAY", "OTEL_EXPORTER_OTLP_HEADERS"] {
            let error = Variables::read(|set| (set == name).then(|| OsString::from_vec(vec![b'1', 0xff]))).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
}

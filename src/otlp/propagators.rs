//! `OTEL_PROPAGATORS`: the headers that carry the context.

use crate::names::header;
use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapCompositePropagator, TextMapPropagator};

use super::values::{invalid, unsupported};
use crate::context::propagators::{B3, Jaeger};
use crate::context::w3c::{self};
use crate::error::Result;

const VARIABLE: &str = "OTEL_PROPAGATORS";

/// Propagators in the order in which they were named, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Propagators(Vec<Name>);

/// A supported propagator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    TraceContext,
    Baggage,
    B3,
    B3Multi,
    Jaeger,
}

impl Default for Propagators {
    fn default() -> Self {
        Self(vec![Name::TraceContext, Name::Baggage])
    }
}

impl Propagators {
    /// Parses the list.
    pub(super) fn parse(list: &str) -> Result<Self> {
        let words: Vec<&str> = list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        if words.contains(&"none") {
            return match words[..] {
                ["none"] => Ok(Self(Vec::new())),
                _ => Err(invalid(VARIABLE, "combines none with other propagators")),
            };
        }
        let mut names = Vec::new();
        for (index, word) in words.iter().enumerate() {
            let name = match *word {
                "tracecontext" => Name::TraceContext,
                "baggage" => Name::Baggage,
                "b3" => Name::B3,
                "b3multi" => Name::B3Multi,
                "jaeger" => Name::Jaeger,
                known @ ("xray" | "ottrace") => {
                    return Err(unsupported(VARIABLE, format!("the propagator {known} is not built in")));
                }
                _ => {
                    let place = index + 1;
                    let known = "tracecontext, baggage, b3, b3multi, jaeger, none";
                    return Err(invalid(VARIABLE, format!("member {place} is not a propagator; known ones: {known}")));
                }
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(Self(names))
    }

    /// Returns `true` if these are the propagators that a broker uses by default.
    pub(super) fn is_default(&self) -> bool {
        self.0.len() == 2 && self.0.contains(&Name::TraceContext) && self.0.contains(&Name::Baggage)
    }

    /// Returns all of them as one.
    pub(super) fn composite(&self) -> TextMapCompositePropagator {
        let all = self.0.iter().map(|name| -> Box<dyn TextMapPropagator + Send + Sync> {
            match name {
                Name::TraceContext => Box::new(W3c::TraceContext),
                Name::Baggage => Box::new(W3c::Baggage),
                Name::B3 => Box::new(B3::Single),
                Name::B3Multi => Box::new(B3::Multi),
                Name::Jaeger => Box::new(Jaeger),
            }
        });
        TextMapCompositePropagator::new(all.collect())
    }
}

/// One half of the [W3C codec](crate::w3c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum W3c {
    TraceContext,
    Baggage,
}

impl W3c {
    fn has(self, header: &str) -> bool {
        (header == header::BAGGAGE) == (self == Self::Baggage)
    }
}

impl TextMapPropagator for W3c {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        w3c::encode_context(context, |name, value| {
            if let (true, Ok(value)) = (self.has(name), str::from_utf8(value)) {
                injector.set(name, value.to_owned());
            }
        });
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        let values = |name| {
            let values = self.has(name).then(|| extractor.get_all(name)).flatten();
            values.into_iter().flatten().map(str::as_bytes)
        };
        w3c::decode_all(values(header::TRACEPARENT), values(header::TRACESTATE), values(header::BAGGAGE), context)
            .context
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: LazyLock<[String; 3]> =
            LazyLock::new(|| [header::TRACEPARENT, header::TRACESTATE, header::BAGGAGE].map(str::to_owned));
        match self {
            Self::TraceContext => FieldIter::new(&FIELDS[..2]),
            Self::Baggage => FieldIter::new(&FIELDS[2..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use opentelemetry::KeyValue;
    use opentelemetry::baggage::BaggageExt as _;
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};

    use super::*;
    use crate::context::carrier::{HeaderExtractor, HeaderInjector};
    use crate::headers::Headers;

    fn context(flags: TraceFlags) -> Context {
        let state = TraceState::from_key_value([("vendor", "1")]).unwrap();
        let span = SpanContext::new(TraceId::from(0xa1_u128 << 64 | 2), SpanId::from(0xb3), flags, false, state);
        Context::new().with_remote_span_context(span).with_baggage([KeyValue::new("tenant", "a")])
    }

    fn written(list: &str, context: &Context) -> HashMap<String, String> {
        let mut headers = HashMap::new();
        Propagators::parse(list).unwrap().composite().inject_context(context, &mut headers);
        headers
    }

    fn read(list: &str, headers: &HashMap<String, String>) -> Context {
        Propagators::parse(list).unwrap().composite().extract_with_context(&Context::new(), headers)
    }

    fn names(headers: &HashMap<String, String>) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn each_writes_its_own_headers_and_reads_them_back() {
        for flags in [TraceFlags::SAMPLED, TraceFlags::default()] {
            let context = context(flags);
            for (list, fields, has_trace) in [
                ("tracecontext", &["traceparent", "tracestate"][..], true),
                ("baggage", &["baggage"], false),
                ("tracecontext,baggage", &["baggage", "traceparent", "tracestate"], true),
                ("b3", &["b3"], true),
                ("b3multi", &["x-b3-sampled", "x-b3-spanid", "x-b3-traceid"], true),
                ("jaeger", &["uber-trace-id", "uberctx-tenant"], true),
                ("b3, tracecontext,b3 ,", &["b3", "traceparent", "tracestate"], true),
                ("none", &[], false),
                (",", &[], false),
            ] {
                let headers = written(list, &context);
                assert_eq!(names(&headers), fields, "{list}");
                let found = read(list, &headers);
                let (from, to) = (context.span().span_context().clone(), found.span().span_context().clone());
                let ids = |span: &SpanContext| (span.trace_id(), span.span_id(), span.is_sampled());
                assert_eq!(ids(&to) == ids(&from), has_trace, "{list}: {to:?}");
                let has_baggage = list.contains("baggage") || list == "jaeger";
                assert_eq!(found.baggage().get("tenant").is_some(), has_baggage, "{list}");
            }
        }
    }

    #[test]
    fn the_formats_are_those_of_their_specifications() {
        let context = context(TraceFlags::SAMPLED);
        let (trace, span) = ("00000000000000a10000000000000002", "00000000000000b3");
        assert_eq!(written("b3", &context)["b3"], format!("{trace}-{span}-1"));
        let headers = written("b3multi", &context);
        assert_eq!([&headers["x-b3-traceid"], &headers["x-b3-spanid"], &headers["x-b3-sampled"]], [trace, span, "1"]);
        assert_eq!(written("jaeger", &context)["uber-trace-id"], format!("{trace}:{span}:0:1"));
    }

    /// Java and Node write each member of the baggage to a header of its own, encoded as in a form
    /// or a URI.
    #[test]
    fn jaegers_baggage_is_that_of_other_languages() {
        let member =
            |value: &str| context(TraceFlags::SAMPLED).with_baggage([KeyValue::new("userId", value.to_owned())]);
        let (mut headers, jaeger) = (Headers::new(), Propagators::parse("jaeger").unwrap().composite());
        jaeger.inject_context(&member("a b,ü%"), &mut HeaderInjector::new(&mut headers));
        let written = headers.iter().find(|(name, _)| *name == "uberctx-userId");
        assert_eq!(written.map(|(_, value)| value), Some(&b"a%20b%2C%C3%BC%25"[..]));
        let found = jaeger.extract_with_context(&Context::new(), &HeaderExtractor::new(&headers));
        assert_eq!(found.baggage().get("userId").map(|value| value.as_str()), Some("a b,ü%"));
        let alone = HashMap::from([("uberctx-tenant".to_owned(), "a".to_owned())]);
        let found = read("jaeger", &alone);
        assert!(found.baggage().get("tenant").is_some() && !found.span().span_context().is_valid());
    }

    #[test]
    fn b3_is_read_in_either_form_whichever_is_written() {
        let context = context(TraceFlags::SAMPLED);
        for (write, read_by) in [("b3", "b3multi"), ("b3multi", "b3")] {
            let found = read(read_by, &written(write, &context));
            assert!(found.span().span_context().is_valid(), "{write} by {read_by}");
        }
    }

    #[test]
    fn garbage_is_no_context() {
        for (list, header, value) in [
            ("b3", "b3", "00000000000000a1-00000000000000b3-2"),
            ("b3", "b3", "0"),
            ("b3multi", "x-b3-traceid", "00000000000000a1"),
            ("jaeger", "uber-trace-id", "a1:b3:0"),
            ("jaeger", "uber-trace-id", "0:0:0:1"),
            ("tracecontext", "traceparent", "00-a1-b3-01"),
        ] {
            let found = read(list, &HashMap::from([(header.to_owned(), value.to_owned())]));
            assert!(!found.span().span_context().is_valid(), "{list} {value}");
        }
    }

    #[test]
    fn a_context_without_a_span_writes_nothing() {
        assert!(written("tracecontext,b3,b3multi,jaeger", &Context::new()).is_empty());
    }

    #[test]
    fn the_default_is_told_from_the_rest() {
        assert!(
            Propagators::default().is_default() && Propagators::parse("baggage,tracecontext").unwrap().is_default()
        );
        for list in ["tracecontext", "none", "tracecontext,baggage,b3", "b3,jaeger"] {
            assert!(!Propagators::parse(list).unwrap().is_default(), "{list}");
        }
        assert!(Propagators::parse("none,b3").is_err());
    }
}

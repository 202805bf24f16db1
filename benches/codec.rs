//! The W3C codec compared with the SDK's propagators, in time and allocations.
//!
//! `cargo bench --bench codec`. `tracestate` is the usual case of one vendor; `baggage` has three
//! members.

use std::collections::HashMap;

use divan::{AllocProfiler, Bencher, black_box, black_box_drop};
use opentelemetry::Context;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use traced_broker::w3c::{self, TraceParent, W3cPropagator};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const RANDOM_PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
const STATE: &str = "rojo=00f067aa0ba902b7";
const BAGGAGE: &str = "user=Am%C3%A9lie,tenant=blue,region=eu-west-1;ttl=3";

/// The headers of a message.
#[derive(Clone, Copy, Debug)]
enum Load {
    Parent,
    RandomParent,
    State,
    Baggage,
    Garbage,
}

const LOADS: [Load; 5] = [Load::Parent, Load::RandomParent, Load::State, Load::Baggage, Load::Garbage];

impl Load {
    /// Returns `traceparent`, `tracestate` and `baggage`.
    fn headers(self) -> [Option<&'static str>; 3] {
        match self {
            Self::Parent => [Some(PARENT), None, None],
            Self::RandomParent => [Some(RANDOM_PARENT), None, None],
            Self::State => [Some(PARENT), Some(STATE), None],
            Self::Baggage => [Some(PARENT), Some(STATE), Some(BAGGAGE)],
            Self::Garbage => [Some("00-garbage"), Some("\r\n"), Some(",;=")],
        }
    }

    fn carrier(self) -> HashMap<String, String> {
        let names = ["traceparent", "tracestate", "baggage"];
        let pairs = names.into_iter().zip(self.headers());
        pairs.filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect()
    }

    fn context(self) -> Context {
        W3cPropagator::new().extract_with_context(&Context::new(), &self.carrier())
    }
}

fn sdk() -> TextMapCompositePropagator {
    TextMapCompositePropagator::new(vec![Box::new(TraceContextPropagator::new()), Box::new(BaggagePropagator::new())])
}

/// Reading a context from headers.
mod extract {
    use super::*;

    #[divan::bench(args = LOADS)]
    fn ours_direct(bencher: Bencher, load: Load) {
        let [parent, state, baggage] = load.headers().map(|value| value.map(str::as_bytes));
        let base = Context::new();
        bencher.bench(|| w3c::decode(black_box(parent), black_box(state), black_box(baggage), &base));
    }

    #[divan::bench(args = LOADS)]
    fn ours_as_propagator(bencher: Bencher, load: Load) {
        let (carrier, base) = (load.carrier(), Context::new());
        bencher.bench(|| W3cPropagator::new().extract_with_context(&base, black_box(&carrier)));
    }

    #[divan::bench(args = LOADS)]
    fn sdk(bencher: Bencher, load: Load) {
        let (carrier, base, sdk) = (load.carrier(), Context::new(), super::sdk());
        bencher.bench(|| sdk.extract_with_context(&base, black_box(&carrier)));
    }
}

/// Writing a context to headers.
mod inject {
    use super::*;

    #[divan::bench(args = LOADS)]
    fn ours_direct(bencher: Bencher, load: Load) {
        let context = load.context();
        bencher.bench(|| {
            w3c::encode_context(black_box(&context), |name, value| {
                black_box((name, value));
            })
        });
    }

    #[divan::bench(args = LOADS)]
    fn ours_as_propagator(bencher: Bencher, load: Load) {
        let context = load.context();
        bencher
            .with_inputs(|| HashMap::with_capacity(3))
            .bench_local_refs(|carrier| W3cPropagator::new().inject_context(black_box(&context), carrier));
    }

    #[divan::bench(args = LOADS)]
    fn sdk(bencher: Bencher, load: Load) {
        let (context, sdk) = (load.context(), super::sdk());
        bencher
            .with_inputs(|| HashMap::with_capacity(3))
            .bench_local_refs(|carrier| sdk.inject_context(black_box(&context), carrier));
    }
}

/// Single headers.
mod header {
    use super::*;

    #[divan::bench]
    fn parse_traceparent() -> Result<TraceParent, w3c::Malformed> {
        TraceParent::parse(black_box(PARENT.as_bytes()))
    }

    #[divan::bench]
    fn encode_traceparent(bencher: Bencher) {
        let parent = TraceParent::parse(PARENT.as_bytes()).ok();
        bencher.bench(|| black_box(&parent).map(|parent| parent.encode()));
    }

    #[divan::bench(args = [1, 4, 32])]
    fn check_tracestate(bencher: Bencher, members: usize) {
        let list: Vec<_> = (0..members).map(|at| format!("vendor{at:02}=00f067aa0ba902b7")).collect();
        let list = list.join(",");
        bencher.bench(|| w3c::tracestate::normalize(black_box(list.as_bytes())));
    }

    #[divan::bench]
    fn correct_tracestate() {
        black_box_drop(w3c::tracestate::normalize(black_box(b"rojo=1 ,, congo=2, rojo=3")));
    }

    #[divan::bench]
    fn parse_baggage() -> w3c::baggage::Parsed {
        w3c::baggage::parse(black_box(BAGGAGE.as_bytes()))
    }

    #[divan::bench]
    fn encode_baggage(bencher: Bencher) {
        let parsed = w3c::baggage::parse(BAGGAGE.as_bytes());
        bencher.bench(|| w3c::baggage::encode(black_box(&parsed.baggage)));
    }
}

/// Input that costs as much as possible.
mod hostile {
    use super::*;

    #[divan::bench]
    fn baggage_of_a_megabyte(bencher: Bencher) {
        let header = "a=1,".repeat(1 << 18);
        bencher.bench(|| w3c::baggage::parse(black_box(header.as_bytes())));
    }

    #[divan::bench]
    fn tracestate_of_the_longest_members(bencher: Bencher) {
        let list: Vec<_> = (0..32).map(|at| format!("{at:0>256}={}", "v".repeat(256))).collect();
        let list = list.join(",");
        bencher.bench(|| w3c::tracestate::normalize(black_box(list.as_bytes())));
    }

    #[divan::bench]
    fn tracestate_of_a_megabyte(bencher: Bencher) {
        let header = vec![b','; 1 << 20];
        bencher.bench(|| w3c::tracestate::normalize(black_box(&header)).is_err());
    }
}

//! The cost of the tracing layer per message: the same driver called directly, through a typical
//! wrapper written by hand, and through `Traced`; without an SDK, with every trace unsampled, and
//! with every trace sampled. The driver confirms at once, so only the layer is measured.
//!
//! `cargo bench --bench layer` prints times and allocations per operation. `cargo bench --bench
//! layer -- --instructions` counts instructions per operation under callgrind, which the load of
//! the machine does not change (needs valgrind).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

mod contenders;
mod instant;
mod instructions;
mod naive;

use divan::{AllocProfiler, Bencher};

use contenders::{Contender, Mode, Operation};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Cargo adds its own argument.
    let words: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    match words[..] {
        ["--instructions"] => instructions::print_table(),
        [instructions::WORK, name, count] => instructions::work(name, count.parse().unwrap()),
        _ => divan::main(),
    }
}

#[divan::bench(args = Contender::all(Operation::Publish))]
fn publish(bencher: Bencher, contender: &Contender) {
    contender.measure(bencher);
}

#[divan::bench(args = Contender::all(Operation::Process))]
fn process(bencher: Bencher, contender: &Contender) {
    contender.measure(bencher);
}

impl Contender {
    fn measure(&self, bencher: Bencher) {
        let operation = self.prepare();
        bencher.bench_local(operation);
    }

    /// Returns every contender at an operation.
    fn all(operation: Operation) -> Vec<Self> {
        let modes = [Mode::NoSdk, Mode::Unsampled, Mode::Sampled];
        let mut all = vec![Self { operation, kind: contenders::Kind::Driver, mode: Mode::NoSdk }];
        for kind in [contenders::Kind::Naive, contenders::Kind::Ours] {
            all.extend(modes.map(|mode| Self { operation, kind, mode }));
        }
        all
    }
}

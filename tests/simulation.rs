//! The library itself under thousands of seeds: publishers, the consumer runtime, redelivery, dead
//! letters, drain, bridge and redrive, judged by messages and by exported spans.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "simulation/judge.rs"]
mod judge;
#[path = "simulation/ledger.rs"]
mod ledger;
#[path = "simulation/orders.rs"]
mod orders;
#[path = "simulation/planted.rs"]
mod planted;
#[path = "simulation/services.rs"]
mod services;
#[path = "simulation/watched.rs"]
mod watched;

use std::time::Duration;

use traced_broker::testing::simulation::{Faults, Simulation, World};

use orders::orders;

/// Returns the number of seeds of each weather; the environment may set another.
fn seeds() -> u64 {
    std::env::var("TRACED_BROKER_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(5_000)
}

fn as_it_is(driver: planted::Connected) -> planted::Connected {
    driver
}

/// Prints the library's log if a single seed is run.
fn log() {
    if std::env::var_os(traced_broker::testing::simulation::SEED).is_some() {
        let _ = tracing_subscriber::fmt().with_env_filter("debug").without_time().with_test_writer().try_init();
    }
}

#[test]
fn nothing_breaks_over_a_network_that_breaks() {
    log();
    Simulation::new().seeds(0..seeds()).run(|world| orders(world, as_it_is));
}

#[test]
fn nothing_breaks_over_a_network_that_breaks_all_the_time() {
    log();
    let stormy = Faults::default().lose_connections_every(Duration::from_millis(300)).refuse(100);
    let stormy = stormy.latency(Duration::from_millis(100)).outage(Duration::from_millis(200));
    Simulation::new().seeds(100_000..100_000 + seeds()).faults(stormy).run(|world| orders(world, as_it_is));
}

#[test]
fn a_seed_is_one_history() {
    for seed in 0..20 {
        let (first, second) = (history(seed), history(seed));
        assert!(first.len() > 20, "{first:#?}");
        let differs = first.iter().zip(&second).find(|(first, second)| first != second);
        assert_eq!(differs, None, "seed {seed} has two histories");
        assert_eq!(first.len(), second.len(), "seed {seed} has two histories");
    }
}

/// Returns the faults and the spans of a seed, in the order of their times.
fn history(seed: u64) -> Vec<String> {
    let told = std::sync::Mutex::default();
    Simulation::new().seeds(seed..seed + 1).run(async |world: World| {
        orders(world.clone(), as_it_is).await?;
        let traces = world.capture().traces();
        let mut spans: Vec<_> = traces.iter().flat_map(|trace| trace.spans()).collect();
        spans.sort_by_key(|span| span.start);
        let spans =
            spans.iter().map(|span| format!("{} to {}: {}, {:?}", span.start, span.end, span.name, span.parent));
        *told.lock().unwrap() = spans.chain(world.happened()).collect();
        Ok(())
    });
    told.into_inner().unwrap()
}

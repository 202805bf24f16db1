//! The faults that a seed draws.

use clap::ValueEnum;

use crate::plan::{Act, Air, Plan};
use crate::scenario::{Broker, Length, Scenario};

fn all() -> impl Iterator<Item = (Scenario, Broker)> {
    let pairs = Scenario::value_variants()
        .iter()
        .flat_map(|scenario| Broker::value_variants().iter().map(move |broker| (*scenario, *broker)));
    pairs.filter(|(scenario, broker)| scenario.is_for(*broker))
}

#[test]
fn one_seed_draws_one_plan_and_another_seed_another() {
    for (scenario, broker) in all() {
        for length in [Length::Short, Length::Normal, Length::Long] {
            let draw = |seed| Plan::draw(scenario, broker, seed, length);
            assert_eq!(draw(7), draw(7), "{scenario} {broker}");
            // The server that is absent comes at a fixed time.
            let has_chance = !draw(7).steps.is_empty() && scenario != Scenario::Absent;
            assert_eq!(draw(7) != draw(8), has_chance, "{scenario} {broker} {length:?}");
        }
    }
}

/// A fault that lasts has its end in the plan: the run is judged after it.
#[test]
fn every_fault_ends() {
    for (scenario, broker) in all() {
        let plan = Plan::draw(scenario, broker, 7, Length::Long);
        let count = |wanted: fn(&Act) -> bool| plan.steps.iter().filter(|step| wanted(&step.act)).count();
        assert_eq!(count(|act| *act == Act::Freeze), count(|act| *act == Act::Thaw));
        assert_eq!(count(|act| *act == Act::CutOff), count(|act| *act == Act::Join));
        let starts = count(|act| *act == Act::Start);
        let kills = count(|act| matches!(act, Act::Kill | Act::KillLeader));
        assert_eq!(kills + usize::from(scenario == Scenario::Absent), starts);
        let (killed, started) =
            (count(|act| matches!(act, Act::KillWorker(_))), count(|act| matches!(act, Act::StartWorker(_))));
        assert_eq!(killed, started);
        let air = plan.steps.iter().rev().find_map(|step| if let Act::Air(air) = &step.act { Some(air) } else { None });
        assert!(air.is_none_or(|air| *air == Air::Clear), "{scenario} {broker}");
    }
}

//! Runs models, and says what they found.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

use crate::sync;

const USAGE: &str = "\
usage: models [MODEL]... [--schedules NUMBER] [--replay SCHEDULE]

Runs the named models, or all, each in so many orders of its steps (default: 4000). A model that
fails prints its schedule; with --replay, the one named model runs in that order alone.

    models --list    the names of the models";

/// Orders of steps that each model runs in.
const SCHEDULES: usize = 4000;
/// The first seed. A run is the same each time.
const SEED: u64 = 1;
/// Number of preemptions at points that the checker chooses, in half of the orders. In the others
/// the next task is a random one after each step.
const PREEMPTIONS: usize = 3;
/// Most steps of one run. One with more goes in circles.
const STEPS: usize = 20_000;

/// A program with assertions. It also fails if all its tasks wait for each other.
#[derive(Clone, Copy)]
pub struct Model {
    pub name: &'static str,
    pub run: fn(),
}

#[derive(Default)]
struct Arguments {
    names: Vec<String>,
    schedules: Option<usize>,
    replay: Option<String>,
    is_list: bool,
}

pub fn run(models: &[Model]) -> ExitCode {
    let chosen = arguments().and_then(|arguments| Ok((choose(models, &arguments.names)?, arguments)));
    let Ok((chosen, arguments)) = chosen else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if arguments.is_list {
        chosen.iter().for_each(|model| println!("{}", model.name));
        return ExitCode::SUCCESS;
    }
    let failed = chosen.iter().filter(|model| !holds(model, &arguments)).count();
    println!("models: {} passed, {failed} failed", chosen.len() - failed);
    ExitCode::from(u8::from(failed > 0))
}

fn holds(model: &Model, arguments: &Arguments) -> bool {
    let begun = Instant::now();
    let schedules = arguments.schedules.unwrap_or(SCHEDULES);
    let half = schedules.div_ceil(2);
    let result = catch_unwind(AssertUnwindSafe(|| match &arguments.replay {
        Some(schedule) => check(model, ReplayScheduler::new_from_encoded(schedule)),
        None => {
            check(model, RandomScheduler::new_from_seed(SEED, half))
                + check(model, PctScheduler::new_from_seed(SEED, PREEMPTIONS, schedules - half))
        }
    }));
    let word = if result.is_ok() { "passed" } else { "FAILED" };
    let (orders, seconds) = (result.unwrap_or(0), begun.elapsed().as_secs_f32());
    println!("{:32} {word}  {orders:6} orders  {seconds:5.1} s", model.name);
    word == "passed"
}

fn check(model: &Model, scheduler: impl Scheduler + 'static) -> usize {
    let mut config = Config::new();
    config.stack_size = 0x40000;
    config.silence_warnings = true;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    let run = model.run;
    Runner::new(scheduler, config).run(move || {
        sync::begin();
        run();
    })
}

fn choose<'a>(models: &'a [Model], names: &[String]) -> Result<Vec<&'a Model>, ()> {
    if names.is_empty() {
        return Ok(models.iter().collect());
    }
    names.iter().map(|name| models.iter().find(|model| model.name == name).ok_or(())).collect()
}

fn arguments() -> Result<Arguments, ()> {
    let (mut arguments, mut words) = (Arguments::default(), env::args().skip(1));
    while let Some(word) = words.next() {
        match word.as_str() {
            "--list" => arguments.is_list = true,
            "--schedules" => arguments.schedules = Some(words.next().ok_or(())?.parse().map_err(drop)?),
            "--replay" => arguments.replay = Some(words.next().ok_or(())?),
            _ if word.starts_with('-') => return Err(()),
            _ => arguments.names.push(word),
        }
    }
    // A schedule is that of one model.
    if arguments.replay.is_some() && arguments.names.len() != 1 {
        return Err(());
    }
    Ok(arguments)
}

//! The faults of a run, drawn from its seed.

use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

use crate::recipe::chance;
use crate::scenario::{Broker, Length, Scenario};

/// The state of the connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Air {
    /// Everything passes.
    Clear,
    /// Each connection is reset after a number of bytes in this range.
    Cuts(Range<usize>),
    /// Data passes in pieces of up to this many bytes.
    Slices(usize),
    /// Each piece of data waits for a time in this range of milliseconds; 64 KB/s pass.
    Slow(Range<u64>),
    /// Everything is swallowed. Connections that lived through it are reset at its end.
    Hole,
}

/// A change that the run makes to its surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Kill,
    /// Kills the server of a cluster that leads the topic; of Redis, the replica.
    KillLeader,
    /// Cuts the server of a cluster that leads the topic off from the others.
    CutOff,
    /// Joins the servers of a cluster again.
    Join,
    /// Starts a server that was killed.
    Start,
    /// Stops the server in order and starts it again.
    Restart,
    Freeze,
    Thaw,
    Air(Air),
    FillDisk,
    /// Gives the space back, and starts the server again if it does not answer.
    FreeDisk,
    Revoke,
    /// Gives the revoked rights back.
    Restore,
    /// Sets the clock of the server to this many seconds from now.
    Jump(i32),
    KillWorker(usize),
    StartWorker(usize),
    DeleteTopic,
    DeleteGroups,
}

impl Act {
    /// Returns `true` if there has to be progress after it.
    pub(crate) fn heals(&self) -> bool {
        match self {
            Self::Kill | Self::KillLeader | Self::CutOff | Self::Freeze => false,
            Self::FillDisk | Self::Revoke | Self::KillWorker(_) => false,
            Self::Air(air) => *air == Air::Clear,
            Self::Join | Self::Start | Self::Restart | Self::Thaw | Self::FreeDisk | Self::Restore => true,
            Self::Jump(_) => true,
            Self::StartWorker(_) | Self::DeleteTopic | Self::DeleteGroups => true,
        }
    }
}

/// A change, and the time to wait before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) wait: Duration,
    pub(crate) act: Act,
}

/// The course of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Time for which the producers go on after the last step, at least.
    pub(crate) tail: Duration,
    /// Messages per second of all producers together.
    pub(crate) rate: u32,
    /// Publishes in a thousand that are dropped before their answer.
    pub(crate) cancelled: u32,
    /// Number of processes that consume; 0 if this process does it itself.
    pub(crate) workers: usize,
}

/// Draws values for one run.
struct Draw {
    chance: Rng,
    broker: Broker,
    length: Length,
}

impl Draw {
    fn seconds(&mut self, range: Range<f64>) -> Duration {
        Duration::from_secs_f64(range.start + self.chance.f64() * (range.end - range.start))
    }

    /// Returns the number of faults.
    fn times(&self) -> usize {
        match self.length {
            Length::Short => 1,
            Length::Normal => 2,
            Length::Long => 5,
        }
    }

    /// Returns one of three values, by the length of the run.
    fn by_length<T>(&self, short: T, normal: T, long: T) -> T {
        match self.length {
            Length::Short => short,
            Length::Normal => normal,
            Length::Long => long,
        }
    }

    /// Returns the time before a fault of the server.
    fn before(&mut self, is_first: bool) -> Duration {
        // RabbitMQ writes new queues to disk every five seconds; a server that is killed before has
        // a queue without a leader, which no client can change. The queues for delayed retries are
        // made when they are first used, in the first seconds of the traffic.
        let early = if self.broker == Broker::Amqp { 10.0..11.0 } else { 1.5..2.5 };
        let recovery = self.broker.recovery().as_secs_f64() + 1.0;
        self.seconds(if is_first { early } else { recovery..recovery + 2.0 })
    }

    fn pairs(&mut self, fault: Act, away: Range<f64>, mended: Act) -> Vec<Step> {
        let mut steps = Vec::new();
        for number in 0..self.times() {
            steps.push(Step { wait: self.before(number == 0), act: fault.clone() });
            steps.push(Step { wait: self.seconds(away.clone()), act: mended.clone() });
        }
        steps
    }

    /// Returns repeated changes without an end.
    fn repeated(&mut self, act: &Act, times: usize, apart: Range<f64>) -> Vec<Step> {
        let mut steps = Vec::new();
        for number in 0..times {
            let wait = if number == 0 { self.before(true) } else { self.seconds(apart.clone()) };
            steps.push(Step { wait, act: act.clone() });
        }
        steps
    }

    /// Returns jumps by an hour and back, and by a few seconds.
    fn jumps(&mut self) -> Vec<Step> {
        let apart = self.by_length(3.0, 6.0, 15.0);
        let small = self.chance.i32(2..20);
        let offsets = self.by_length(vec![3600, 0], vec![3600, 0, -small, 0], vec![3600, 0, -small, 0, -3600, 0]);
        let step = |offset| Step { wait: self.seconds(apart..apart * 1.2), act: Act::Jump(offset) };
        offsets.into_iter().map(step).collect()
    }

    fn workers(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..self.by_length(1, 3, 8) {
            let victim = self.chance.usize(0..WORKERS);
            steps.push(Step { wait: self.seconds(2.0..4.0), act: Act::KillWorker(victim) });
            steps.push(Step { wait: self.seconds(0.5..2.0), act: Act::StartWorker(victim) });
        }
        steps
    }

    /// Returns the first state of the connections for a while, then the others, then none.
    fn weather(&mut self, states: impl IntoIterator<Item = Air>, each: f64) -> Vec<Step> {
        let mut steps = Vec::new();
        for air in states {
            steps.push(Step { wait: self.seconds(1.5..2.5), act: Act::Air(air) });
            steps.push(Step { wait: self.seconds(each..each * 1.2), act: Act::Air(Air::Clear) });
        }
        steps
    }

    /// Returns the faults of a scenario.
    fn steps(&mut self, scenario: Scenario) -> Vec<Step> {
        match scenario {
            Scenario::Calm | Scenario::Cancel | Scenario::Soak | Scenario::Runtimes => Vec::new(),
            Scenario::Kill => self.pairs(Act::Kill, 0.2..3.0, Act::Start),
            Scenario::Restart => {
                let times = self.by_length(1, 3, 6);
                let recovery = self.broker.recovery().as_secs_f64() + 2.0;
                self.repeated(&Act::Restart, times, recovery..recovery + 2.0)
            }
            Scenario::Pause => {
                let away = self.by_length(2.0..3.0, 2.0..6.0, 2.0..30.0);
                self.pairs(Act::Freeze, away, Act::Thaw)
            }
            Scenario::Cuts => {
                let each = self.by_length(8.0, 20.0, 60.0);
                self.weather([Air::Cuts(20_000..100_000)], each)
            }
            Scenario::Slices => {
                let each = self.by_length(2.0, 6.0, 30.0);
                self.weather([Air::Slices(200), Air::Slow(100..300)], each)
            }
            Scenario::Hole => {
                let each = self.by_length(4.0, 12.0, 40.0);
                self.weather([Air::Hole], each)
            }
            Scenario::Cluster => {
                let away = self.by_length(4.0..6.0, 6.0..12.0, 6.0..40.0);
                self.pairs(Act::KillLeader, away, Act::Start)
            }
            Scenario::Split => {
                let away = self.by_length(4.0..6.0, 8.0..16.0, 8.0..60.0);
                self.pairs(Act::CutOff, away, Act::Join)
            }
            Scenario::Disk => {
                let full = self.by_length(3.0..5.0, 4.0..10.0, 10.0..40.0);
                self.pairs(Act::FillDisk, full, Act::FreeDisk)
            }
            Scenario::Credentials => {
                let away = self.by_length(3.0..5.0, 4.0..10.0, 10.0..40.0);
                self.pairs(Act::Revoke, away, Act::Restore)
            }
            Scenario::Clock => self.jumps(),
            Scenario::Absent => vec![Step { wait: Duration::from_secs(self.by_length(3, 8, 20)), act: Act::Start }],
            Scenario::Worker => self.workers(),
            Scenario::DeleteTopic => {
                let times = self.by_length(1, 2, 4);
                self.repeated(&Act::DeleteTopic, times, 7.0..9.0)
            }
            Scenario::DeleteGroup => {
                let times = self.by_length(1, 3, 6);
                self.repeated(&Act::DeleteGroups, times, 2.0..4.0)
            }
        }
    }

    /// Returns the seconds after the last fault.
    fn tail(&self, scenario: Scenario) -> u64 {
        match scenario {
            Scenario::DeleteTopic | Scenario::DeleteGroup => 14,
            // Each client has to try again before it is closed.
            Scenario::Credentials => self.by_length(6, 8, 10),
            Scenario::Soak => self.by_length(5, 180, 600),
            Scenario::Calm | Scenario::Cancel => self.by_length(4, 10, 60),
            _ => self.by_length(2, 5, 10),
        }
    }
}

/// The number of consumer processes, where there are several.
const WORKERS: usize = 2;

impl Plan {
    /// Draws the faults; the same seed draws the same ones.
    pub(crate) fn draw(scenario: Scenario, broker: Broker, seed: u64, length: Length) -> Self {
        let chance = chance(&(seed, scenario.to_string(), broker.to_string()));
        let mut draw = Draw { chance, broker, length };
        Self {
            steps: draw.steps(scenario),
            tail: Duration::from_secs(draw.tail(scenario)),
            rate: draw.by_length(120, 200, 300),
            cancelled: if scenario == Scenario::Cancel { 300 } else { 0 },
            workers: match scenario {
                Scenario::Worker => WORKERS,
                // The history is not in the memory of a process of its own.
                Scenario::Soak => 1,
                _ => 0,
            },
        }
    }
}

//! One scenario on one broker: its rules and its outcome.

use std::time::{Duration, Instant};

use crate::checker::{self, Figures, Finding, Rules};
use crate::consumers::{DEAD, GROUPS, ORDERED};
use crate::credentials::SECRET;
use crate::history::{Event, Record};
use crate::panics;
use crate::plan::Plan;
use crate::recorder::Recorder;
use crate::resources;
use crate::runtimes;
use crate::scenario::{Broker, Length, Scenario};
use crate::secrets;
use crate::site::Site;
use crate::stage::Stage;

/// A run to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) scenario: Scenario,
    pub(crate) broker: Broker,
    pub(crate) seed: u64,
    pub(crate) length: Length,
    pub(crate) load: Load,
    /// `true` if this process makes no other run meanwhile, so that its threads can be counted.
    pub(crate) is_alone: bool,
    /// Further options of the clients' address.
    pub(crate) options: &'static str,
}

/// The traffic of a run, where it is not that of its length.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    /// Messages per second.
    pub(crate) rate: Option<u32>,
    /// The faults go on until this many messages were published.
    pub(crate) messages: usize,
}

/// A run that was made.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) case: Case,
    /// Empty where nothing was found.
    pub(crate) history: Vec<Record>,
    pub(crate) figures: Figures,
    pub(crate) recoveries: Vec<Option<Duration>>,
    pub(crate) findings: Vec<Finding>,
    /// Reason for which the run could not be made.
    pub(crate) failure: Option<String>,
    pub(crate) took: Duration,
}

impl Case {
    /// Makes the run.
    pub(crate) async fn run(self, recorder: Recorder) -> Outcome {
        let begin = Instant::now();
        let failure = if self.scenario == Scenario::Runtimes {
            runtimes::run(self.broker, &recorder).await.err()
        } else {
            self.stage(&recorder).await.err()
        };
        for panic in panics::take() {
            recorder.note(Event::Stuck { what: panic });
        }
        if self.has_secret() {
            secrets::take().into_iter().for_each(|text| recorder.note(Event::Told { text }));
        }
        let (history, rules) = (recorder.snapshot(), self.rules());
        Outcome {
            case: self,
            figures: checker::figures(&history, &rules),
            recoveries: checker::recoveries(&history, &rules),
            findings: checker::check(&history, &rules),
            history,
            failure,
            took: begin.elapsed(),
        }
    }

    /// Returns the promises of this broker in this scenario.
    pub(crate) fn rules(self) -> Rules {
        let is_deletion = matches!(self.scenario, Scenario::DeleteTopic | Scenario::DeleteGroup);
        // A queue takes its messages with it; streams keep them when a group goes.
        let takes_messages = match self.scenario {
            Scenario::DeleteTopic => true,
            Scenario::DeleteGroup => self.broker == Broker::Amqp,
            _ => false,
        };
        Rules {
            groups: GROUPS.map(str::to_owned).to_vec(),
            // Order is kept for one member.
            ordered: (self.scenario != Scenario::Worker).then(|| ORDERED.to_owned()),
            // The new leader of a queue hands messages to the consumer of a server that has just
            // died (`docs/guarantees.md`).
            redelivered_may_be_late: (self.scenario, self.broker) == (Scenario::Cluster, Broker::Amqp),
            dead: DEAD.to_owned(),
            settles_for_good: self.broker.confirms_settlements() && !is_deletion,
            lost_with_deletion: takes_messages.then_some(Duration::from_secs(5)),
            secret: self.has_secret().then(|| SECRET.to_owned()),
            recovery: self.recovery(),
            // A group that is made again begins at the oldest message that may be unsettled.
            spare_deliveries: if is_deletion { 10 } else { 0 },
        }
    }

    /// Returns `true` if the address of the clients has a password.
    fn has_secret(self) -> bool {
        self.scenario == Scenario::Credentials
    }

    /// Returns the maximum time from healing to progress.
    fn recovery(self) -> Duration {
        match (self.scenario, self.broker) {
            // The servers elect a leader within nine seconds. Publishes that had none have no
            // answer, and keep their places in flight, until `confirm_timeout`.
            (Scenario::Cluster | Scenario::Split, Broker::Nats) => Duration::from_secs(20),
            // The server looks at its disk every ten seconds.
            (Scenario::Disk, Broker::Amqp) => Duration::from_secs(20),
            _ => self.broker.recovery(),
        }
    }

    /// Returns the time without an event after which nothing more is expected: longer than the time
    /// after which the broker gives unsettled messages of a lost member to others.
    pub(crate) fn quiet(self) -> Duration {
        Duration::from_secs(match self.broker {
            Broker::Memory => 3,
            Broker::Amqp => 12,
            Broker::Nats => 15,
            Broker::Redis => 30,
            Broker::Kafka => 40,
        })
    }

    async fn stage(self, recorder: &Recorder) -> Result<(), String> {
        let mut plan = Plan::draw(self.scenario, self.broker, self.seed, self.length);
        plan.rate = self.load.rate.unwrap_or(plan.rate);
        let mut site = Site::start(self.broker, self.scenario, self.seed, recorder).await?;
        if !self.options.is_empty() {
            site.url += if site.url.contains('?') { "&" } else { "?" };
            site.url += self.options;
        }
        let stage = Stage { case: self, plan, site: &site, recorder, workers: Vec::new(), lives: 0, victim: 0 };
        // The proxies between servers belong to this process, and so do their descriptors.
        let is_counted = self.is_alone && self.scenario != Scenario::Split;
        let before = if is_counted { Some(resources::before(&site.url).await) } else { None };
        let ended = stage.play().await;
        if let Some(before) = before {
            resources::after("the run", before, recorder).await;
        }
        site.end().await;
        ended
    }
}

//! A run under way: traffic, faults, drain, and closing.

use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{sleep, timeout};

use crate::case::Case;
use crate::checker;
use crate::consumers::{Consumers, DEAD, GROUPS, Job, PLAIN};
use crate::credentials;
use crate::history::Event;
use crate::leader;
use crate::operator::{Done, Operator};
use crate::plan::{Act, Air, Plan};
use crate::producers::{Orders, Producers};
use crate::recorder::Recorder;
use crate::scenario::{Broker, Scenario};
use crate::site::{Site, blocking};
use crate::support::{Disk, Server};
use crate::worker::Worker;

/// The topic of a run, on a server that belongs to the run.
const TOPIC: &str = "chaos.orders";
/// Maximum time in which all consumers subscribe.
const JOINING: Duration = Duration::from_secs(60);
/// Maximum time for all messages to arrive once nothing is published any more.
const DRAIN: Duration = Duration::from_secs(120);
/// Maximum duration of an orderly end of the consumers.
const STOP: Duration = Duration::from_secs(60);
/// Maximum duration of a question of the operator.
const COUNTING: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

/// The space in MiB that a full disk of RabbitMQ still has. The server blocks publishers below 50.
/// Its write-ahead log does not live through a write that fails: then its queues are gone until it
/// is started again.
const SPARED: u64 = 40;

/// A run under way.
pub(crate) struct Stage<'a> {
    pub(crate) case: Case,
    pub(crate) plan: Plan,
    pub(crate) site: &'a Site,
    pub(crate) recorder: &'a Recorder,
    pub(crate) workers: Vec<Option<Worker>>,
    /// The number of worker processes that were started.
    pub(crate) lives: usize,
    /// The number of the server that faults happen to.
    pub(crate) victim: usize,
}

impl Stage<'_> {
    /// Plays the whole run.
    ///
    /// # Errors
    /// The reason for which it could not be made; not a break.
    pub(crate) async fn play(mut self) -> Result<(), String> {
        let is_absent = self.case.scenario == Scenario::Absent;
        if is_absent {
            self.leave_only_groups().await?;
        }
        let own = self.start_consumers()?;
        if !is_absent {
            self.wait_for_members().await?;
        }
        let (url, topic, seed) = (self.site.url.clone(), TOPIC.to_owned(), self.case.seed);
        let orders = Orders { url, topic, seed, rate: self.plan.rate, cancelled: self.plan.cancelled };
        let producers = Producers::start(&orders, self.recorder);
        loop {
            for step in self.plan.steps.clone() {
                sleep(step.wait).await;
                self.act(step.act).await?;
            }
            if self.recorder.attempted() >= self.case.load.messages {
                break;
            }
            self.wait_for_recovery().await;
            sleep(PAUSE).await;
        }
        sleep(self.plan.tail).await;
        self.wait_for_recovery().await;
        self.recorder.note(Event::TrafficEnded);
        producers.stop();
        producers.end().await;
        self.drain().await;
        if timeout(STOP, self.stop_consumers(own)).await.is_err() {
            self.recorder.note(Event::Stuck { what: format!("the consumers did not stop within {STOP:?}") });
        }
        self.look_for_remains().await;
        Ok(())
    }

    /// Makes topic and groups, and kills the server. RabbitMQ keeps nothing for a group that was
    /// never there, and registers a new queue on disk within five seconds.
    async fn leave_only_groups(&self) -> Result<(), String> {
        Consumers::start(self.job("before"), self.recorder.clone()).await.stop().await;
        let settling = if self.case.broker == Broker::Amqp { 6 } else { 0 };
        sleep(Duration::from_secs(settling)).await;
        self.recorder.note(Event::Fault { name: "absent".to_owned() });
        self.site.on_server(self.victim, Server::kill).await
    }

    fn job(&self, member: &str) -> Job {
        let (url, topic) = (self.site.url.clone(), TOPIC.to_owned());
        Job { url, topic, seed: self.case.seed, member: member.to_owned() }
    }

    /// Starts the consumers: in processes of their own, or else in this one.
    fn start_consumers(&mut self) -> Result<Option<JoinHandle<Consumers>>, String> {
        for _ in 0..self.plan.workers {
            let worker = self.start_worker()?;
            self.workers.push(Some(worker));
        }
        let is_here = self.plan.workers == 0;
        Ok(is_here.then(|| tokio::spawn(Consumers::start(self.job("consumers"), self.recorder.clone()))))
    }

    fn start_worker(&mut self) -> Result<Worker, String> {
        self.lives += 1;
        Worker::start(&self.job(&format!("worker {}", self.lives)), self.recorder)
    }

    async fn wait_for_members(&self) -> Result<(), String> {
        let begin = Instant::now();
        let wanted = self.plan.workers.max(1);
        let joined = |recorder: &Recorder| {
            recorder.snapshot().iter().filter(|record| matches!(record.event, Event::Joined { .. })).count()
        };
        while joined(self.recorder) < wanted {
            if begin.elapsed() > JOINING {
                return Err(format!("the consumers did not subscribe within {JOINING:?}"));
            }
            sleep(PAUSE / 5).await;
        }
        Ok(())
    }

    async fn act(&mut self, act: Act) -> Result<(), String> {
        let heals = act.heals();
        match act {
            Act::Kill => {
                self.fault("kill");
                self.site.on_server(self.victim, Server::kill).await?;
            }
            Act::KillLeader => self.kill_leader().await?,
            Act::CutOff => {
                self.victim = leader::find(self.case.broker, self.site, TOPIC, PLAIN).await?;
                self.fault(&format!("server {} is cut off", self.victim + 1));
                self.site.cut_off(self.victim);
            }
            Act::Join => self.site.join(),
            Act::Start => self.start_again().await?,
            Act::Restart => {
                self.fault("restart");
                self.site.on_server(self.victim, Server::restart).await?;
            }
            Act::Freeze => {
                self.fault("pause");
                self.site.on_server(self.victim, Server::pause).await?;
            }
            Act::Thaw => self.site.on_server(self.victim, Server::resume).await?,
            Act::Air(Air::Clear) => self.site.set(Air::Clear),
            Act::Air(air) => {
                self.fault(&format!("{air:?}"));
                self.site.set(air);
            }
            Act::KillWorker(number) => {
                if let Some(worker) = self.workers[number].take() {
                    worker.kill().await;
                }
            }
            Act::StartWorker(number) => self.workers[number] = Some(self.start_worker()?),
            Act::FillDisk => {
                self.fault("full disk");
                let spared = if self.case.broker == Broker::Amqp { SPARED } else { 0 };
                self.site.on_disk_of_server(move |disk| disk.fill(spared)).await?;
            }
            Act::FreeDisk => self.free_disk().await?,
            Act::Revoke => {
                self.fault("rights revoked");
                self.change_rights(credentials::revoke).await?;
            }
            Act::Restore => self.change_rights(credentials::restore).await?,
            Act::Jump(offset) => {
                self.fault(&format!("clock at {offset:+} s"));
                self.site.set_clock(offset)?;
            }
            Act::DeleteTopic => self.delete("the topic", &[TOPIC]).await?,
            Act::DeleteGroups => self.delete("a group", &GROUPS).await?,
        }
        if heals {
            self.recorder.note(Event::Healed);
        }
        Ok(())
    }

    async fn kill_leader(&mut self) -> Result<(), String> {
        self.victim = leader::find(self.case.broker, self.site, TOPIC, PLAIN).await?;
        self.fault(&format!("kill of server {}", self.victim + 1));
        self.site.on_server(self.victim, Server::kill).await?;
        // The primary of Redis waits for its replica. Elsewhere the other servers go on.
        if self.case.broker != Broker::Redis {
            self.recorder.note(Event::Healed);
        }
        Ok(())
    }

    async fn free_disk(&self) -> Result<(), String> {
        self.site.on_disk_of_server(Disk::free).await?;
        let server = self.site.server(self.victim)?;
        // A stream of NATS whose file could not be written stores nothing until its server is
        // started again. The other servers end themselves, or go on.
        if self.case.broker == Broker::Nats || !blocking(move || server.answers()).await? {
            self.fault("start after the full disk");
            self.site.on_server(self.victim, Server::restart).await?;
        }
        Ok(())
    }

    async fn change_rights(&self, change: fn(&Server) -> Done<()>) -> Result<(), String> {
        let server = self.site.server(self.victim)?;
        blocking(move || change(&server)).await?.map_err(|error| format!("the rights cannot be changed: {error}"))
    }

    /// Starts the server that was killed. In a cluster, the others first have to do without it.
    async fn start_again(&self) -> Result<(), String> {
        if self.case.scenario == Scenario::Cluster && self.case.broker != Broker::Redis {
            self.wait_for_recovery().await;
        }
        self.site.on_server(self.victim, Server::restart).await
    }

    fn fault(&self, name: &str) {
        self.recorder.note(Event::Fault { name: name.to_owned() });
    }

    fn operator(&self) -> Operator {
        Operator { broker: self.case.broker, url: self.site.direct.clone() }
    }

    async fn delete(&self, what: &str, names: &[&str]) -> Result<(), String> {
        for name in names {
            let operator = self.operator();
            let is_topic = *name == TOPIC;
            let deleted =
                if is_topic { operator.delete_topic(TOPIC).await } else { operator.delete_group(TOPIC, name).await };
            deleted.map_err(|error| format!("{what} cannot be deleted: {error}"))?;
            self.recorder.note(Event::Deleted { what: format!("{what}: {name}") });
        }
        Ok(())
    }

    /// Waits until the last fault is overcome, or ought to be.
    async fn wait_for_recovery(&self) {
        let begin = Instant::now();
        let rules = self.case.rules();
        while begin.elapsed() < rules.recovery + Duration::from_secs(2) {
            let measured = checker::recoveries(&self.recorder.since_last_fault(), &rules);
            if measured.last().is_none_or(Option::is_some) {
                return;
            }
            sleep(PAUSE).await;
        }
    }

    /// Waits until nothing is left to come, or nothing comes any more.
    async fn drain(&self) {
        let (begin, rules) = (Instant::now(), self.case.rules());
        let (mut events, mut last_event, mut outstanding) = (0, Instant::now(), usize::MAX);
        while begin.elapsed() < DRAIN && last_event.elapsed() < self.case.quiet() {
            let history = self.recorder.snapshot();
            if history.len() != events {
                (events, last_event) = (history.len(), Instant::now());
                outstanding = block_in_place(|| checker::outstanding(&history, &rules));
            }
            // An acknowledgement may have been lost on its way: then its message comes again.
            if outstanding == 0 && self.pending().await.iter().all(|(_, pending)| !matches!(pending, Ok(1..))) {
                break;
            }
            sleep(PAUSE).await;
        }
        // Messages that must not come again get a chance to.
        sleep(2 * PAUSE).await;
    }

    async fn stop_consumers(&mut self, own: Option<JoinHandle<Consumers>>) {
        if let Some(own) = own {
            match own.await {
                Ok(consumers) => consumers.stop().await,
                Err(error) => self.recorder.note(Event::Stuck { what: format!("the consumers: {error}") }),
            }
        }
        for worker in self.workers.drain(..).flatten() {
            worker.stop().await;
        }
    }

    /// Asks the broker for messages that are not settled.
    async fn pending(&self) -> Vec<(&'static str, Result<u64, String>)> {
        let dead = self.job("operator").dead_letters();
        let mut counts = Vec::new();
        for (topic, group) in GROUPS.map(|group| (TOPIC, group)).into_iter().chain([(&*dead, DEAD)]) {
            let count = timeout(COUNTING, self.operator().pending(topic, group)).await;
            let count = count.map_err(|_| "no answer".to_owned());
            counts.push((group, count.and_then(|count| count.map_err(|error| error.to_string()))));
        }
        counts
    }

    /// Notes the messages that are not settled after closing.
    async fn look_for_remains(&self) {
        for (group, pending) in self.pending().await {
            let group = group.to_owned();
            self.recorder.note(match pending {
                Ok(count) => Event::Pending { group, count },
                Err(error) => Event::Trouble { group, why: format!("not counted: {error}") },
            });
        }
    }
}

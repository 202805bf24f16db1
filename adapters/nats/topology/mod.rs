//! Streams and consumers: found, checked, and created if that is allowed.

pub(crate) mod names;

use std::time::Duration;

use serde_json::Value;

use crate::driver::Topology;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Start;

use super::config::Config;
use super::connection::info::{ConsumerConfig, ConsumerInfo, StreamInfo, nanos, object};
use super::connection::link::Link;
use crate::adapters::nats::connection::api;
use crate::adapters::nats::headers::time;

/// Maximum number of unsettled messages of a group, all members together. Members limit themselves
/// by their prefetch; this only limits what the server remembers.
const MAX_ACK_PENDING: u64 = 65_536;
/// Minimum of `max_deliver` of a group, if an operator has set it. The server counts each time that
/// it hands a message out, also when it is only fetched ahead, and drops it afterwards without a
/// word.
const MIN_DELIVERIES: u64 = 100;
/// Time for which the server keeps the consumer of a reader without a group while it is not used.
/// If it is still needed, it is created again at its position.
const READER_LIFE: Duration = Duration::from_secs(60);

/// Makes sure that a stream takes the topic. An existing stream keeps its name and configuration.
pub(super) async fn stream(link: &Link, config: &Config, topic: &str) -> Result<StreamInfo> {
    let subject = names::subject(topic);
    if let Some(found) = find_stream(link, &subject).await? {
        return Ok(found);
    }
    let name = names::object(topic);
    if config.topology == Topology::Check {
        let message = "no stream takes this topic, and topology=check forbids creating it";
        return Err(Error::new(ErrorKind::NotFound, message).with_context("subject", &subject));
    }
    let delays = config.level >= api::DELAY_LEVEL;
    let mut subjects = vec![subject.to_string()];
    subjects.extend(delays.then(|| names::delayed_subjects(topic)));
    let limits = &config.limits;
    let mut wanted = vec![
        ("name", name.as_str().into()),
        ("subjects", subjects.into()),
        ("allow_msg_schedules", delays.into()),
        // Delayed messages must not expire before they are due.
        ("allow_msg_ttl", delays.into()),
        ("retention", "limits".into()),
        ("storage", limits.storage.as_str().into()),
        ("num_replicas", config.replicas.into()),
        ("max_age", nanos(limits.max_age)),
    ];
    wanted.extend(limits.max_bytes.map(|most| ("max_bytes", most.into())));
    wanted.extend(limits.max_msgs.map(|most| ("max_msgs", most.into())));
    wanted.extend(limits.duplicate_window.map(|window| ("duplicate_window", nanos(window))));
    match api::create_stream(link, &name, object(wanted)).await {
        Ok(info) => usable(info),
        // Another program, with another configuration, was quicker.
        Err(conflict) if conflict.kind() == ErrorKind::Conflict => {
            find_stream(link, &subject).await?.ok_or_else(|| conflict.with_context("stream", name))
        }
        Err(error) => Err(error.with_context("stream", name)),
    }
}

/// Returns the stream that takes a subject, if there is one.
pub(super) async fn find_stream(link: &Link, subject: &str) -> Result<Option<StreamInfo>> {
    match api::stream_of(link, subject).await? {
        Some(name) => usable(api::stream(link, &name).await?).map(Some),
        None => Ok(None),
    }
}

fn usable(info: StreamInfo) -> Result<StreamInfo> {
    if info.no_ack {
        let message = "the stream does not confirm publishes (no_ack), so no publish could complete";
        return Err(Error::new(ErrorKind::Conflict, message).with_context("stream", info.name));
    }
    Ok(info)
}

/// A consumer to find or create.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) stream: &'a StreamInfo,
    pub(super) topic: &'a str,
    pub(super) name: &'a str,
    /// `true` for a group, which stays; `false` for a reader without a group.
    pub(super) durable: bool,
    /// `true` to look for it first.
    pub(super) may_exist: bool,
    pub(super) begin: Begin,
}

/// The position at which a consumer that is created begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    Start(Start),
    Sequence(u64),
}

/// Makes sure that the consumer exists, is a pull consumer, and takes acknowledgements.
pub(super) async fn consumer(link: &Link, config: &Config, wanted: &Wanted<'_>) -> Result<ConsumerInfo> {
    let stream = &wanted.stream.name;
    if wanted.may_exist {
        match api::consumer(link, stream, wanted.name).await {
            Ok(info) => return wanted.check(info),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Err(missing) if wanted.durable && config.topology == Topology::Check => {
                let message = "the group does not exist, and topology=check forbids creating it";
                return Err(Error::new(ErrorKind::NotFound, message)
                    .with_context("consumer", wanted.name)
                    .with_source(missing));
            }
            Err(_) => {}
        }
    }
    match api::create_consumer(link, stream, wanted.config(config)).await {
        Ok(info) => wanted.check(info),
        // Another member, with another configuration, was quicker.
        Err(error) if error.kind() == ErrorKind::Conflict && wanted.durable => {
            let info = api::consumer(link, stream, wanted.name).await.map_err(|_| error)?;
            wanted.check(info)
        }
        Err(error) => Err(error.with_context("consumer", wanted.name)),
    }
}

/// Sets the position at which a consumer that is created begins.
pub(super) fn begin_at(config: &mut ConsumerConfig, start: Start) {
    let (policy, sequence, time) = match start {
        Start::Earliest => ("all", Value::Null, Value::Null),
        Start::Latest => ("new", Value::Null, Value::Null),
        Start::Time(time) => ("by_start_time", Value::Null, time::nearest_rfc3339(time).into()),
        // Sequences in a stream begin at 1.
        Start::Offset(sequence) => ("by_start_sequence", sequence.max(1).into(), Value::Null),
    };
    config.set("deliver_policy", policy.into());
    config.set("opt_start_seq", sequence);
    config.set("opt_start_time", time);
}

impl Wanted<'_> {
    fn config(&self, config: &Config) -> ConsumerConfig {
        let mut wanted = ConsumerConfig::new([
            ("name", self.name.into()),
            ("ack_policy", "explicit".into()),
            ("ack_wait", nanos(config.ack_wait)),
            ("max_ack_pending", MAX_ACK_PENDING.into()),
            ("filter_subject", names::subject(self.topic).as_str().into()),
            ("replay_policy", "instant".into()),
        ]);
        if self.durable {
            wanted.set("durable_name", self.name.into());
        } else {
            wanted.set("inactive_threshold", nanos(READER_LIFE));
        }
        match self.begin {
            Begin::Start(start) => begin_at(&mut wanted, start),
            Begin::Sequence(sequence) => begin_at(&mut wanted, Start::Offset(sequence)),
        }
        wanted
    }

    fn check(&self, info: ConsumerInfo) -> Result<ConsumerInfo> {
        let config = &info.config;
        let subject = names::subject(self.topic);
        let filter_fits = match (config.text("filter_subject"), config.texts("filter_subjects").as_slice()) {
            // Delayed messages must not be delivered before they are due.
            ("", []) => self.stream.subjects == [subject.as_str()],
            ("", [only]) => *only == subject.as_str(),
            (filter, _) => filter == subject.as_str(),
        };
        let trouble = if !config.text("deliver_subject").is_empty() {
            "the group exists as a push consumer; delete it, or use another name"
        } else if config.text("ack_policy") != "explicit" {
            "the group exists without explicit acknowledgement; delete it, or use another name"
        } else if !filter_fits {
            "the group exists for another topic of the same stream, or for all; use another name"
        } else if config.flag("headers_only") {
            "the group exists for headers only; use another name"
        } else if config.limit("max_deliver").is_some_and(|most| most < MIN_DELIVERIES) {
            "the server would drop messages of the group silently: set max_deliver of the consumer to -1, or to \
             100 or more, and limit attempts by Retry"
        } else {
            return Ok(info);
        };
        Err(Error::new(ErrorKind::Conflict, trouble).with_context("consumer", self.name))
    }
}

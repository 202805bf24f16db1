//! Streams and consumers: found, checked, and created if that is allowed.

pub(crate) mod names;

use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy};
use async_nats::jetstream::stream::{self, RetentionPolicy, StorageType};

use crate::driver::Topology;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Start;

use super::config::Config;
use super::connection::link::Link;
use crate::adapters::nats::connection::api;
use crate::adapters::nats::headers::time;

/// Maximum number of unsettled messages of a group, all members together. Members limit themselves
/// by their prefetch; this only limits what the server remembers.
const MAX_ACK_PENDING: i64 = 65_536;
/// Time for which the server keeps the consumer of a reader without a group while it is not used.
/// If it is still needed, it is created again at its position.
const READER_LIFE: Duration = Duration::from_secs(60);

/// Makes sure that a stream takes the topic. An existing stream keeps its name and configuration.
pub(super) async fn stream(link: &Link, config: &Config, topic: &str) -> Result<stream::Info> {
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
    let wanted = stream::Config {
        name,
        subjects,
        allow_message_schedules: delays,
        // Delayed messages must not expire before they are due.
        allow_message_ttl: delays,
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: config.replicas,
        max_age: config.max_age,
        ..stream::Config::default()
    };
    match api::create_stream(link, &wanted).await {
        Ok(info) => usable(info),
        // Another program, with another configuration, was quicker.
        Err(conflict) if conflict.kind() == ErrorKind::Conflict => {
            find_stream(link, &subject).await?.ok_or_else(|| conflict.with_context("stream", wanted.name))
        }
        Err(error) => Err(error.with_context("stream", wanted.name)),
    }
}

/// Returns the stream that takes a subject, if there is one.
pub(super) async fn find_stream(link: &Link, subject: &str) -> Result<Option<stream::Info>> {
    match api::stream_of(link, subject).await? {
        Some(name) => usable(api::stream(link, &name).await?).map(Some),
        None => Ok(None),
    }
}

fn usable(info: stream::Info) -> Result<stream::Info> {
    if info.config.no_ack {
        let message = "the stream does not confirm publishes (no_ack), so no publish could complete";
        return Err(Error::new(ErrorKind::Conflict, message).with_context("stream", info.config.name));
    }
    Ok(info)
}

/// A consumer to find or create.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) stream: &'a stream::Info,
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
pub(super) async fn consumer(link: &Link, config: &Config, wanted: &Wanted<'_>) -> Result<consumer::Info> {
    let stream = &wanted.stream.config.name;
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
    match api::create_consumer(link, stream, &wanted.config(config)).await {
        Ok(info) => wanted.check(info),
        // Another member, with another configuration, was quicker.
        Err(error) if error.kind() == ErrorKind::Conflict && wanted.durable => {
            let info = api::consumer(link, stream, wanted.name).await.map_err(|_| error)?;
            wanted.check(info)
        }
        Err(error) => Err(error.with_context("consumer", wanted.name)),
    }
}

/// Returns the delivery policy of a consumer that is created to begin at this position.
pub(super) fn policy(start: Start) -> DeliverPolicy {
    match start {
        Start::Earliest => DeliverPolicy::All,
        Start::Latest => DeliverPolicy::New,
        Start::Time(time) => DeliverPolicy::ByStartTime { start_time: time::date(time) },
        // Sequences in a stream begin at 1.
        Start::Offset(sequence) => DeliverPolicy::ByStartSequence { start_sequence: sequence.max(1) },
    }
}

impl Wanted<'_> {
    fn config(&self, config: &Config) -> consumer::Config {
        let deliver_policy = match self.begin {
            Begin::Start(start) => policy(start),
            Begin::Sequence(start_sequence) => DeliverPolicy::ByStartSequence { start_sequence },
        };
        consumer::Config {
            name: Some(self.name.to_owned()),
            durable_name: self.durable.then(|| self.name.to_owned()),
            inactive_threshold: if self.durable { Duration::ZERO } else { READER_LIFE },
            deliver_policy,
            ack_policy: AckPolicy::Explicit,
            ack_wait: config.ack_wait,
            max_ack_pending: MAX_ACK_PENDING,
            filter_subject: names::subject(self.topic).to_string(),
            ..consumer::Config::default()
        }
    }

    fn check(&self, info: consumer::Info) -> Result<consumer::Info> {
        let config = &info.config;
        let subject = names::subject(self.topic);
        let filter_fits = match (config.filter_subject.as_str(), config.filter_subjects.as_slice()) {
            // Delayed messages must not be delivered before they are due.
            ("", []) => self.stream.config.subjects == [subject.as_str()],
            ("", [only]) => only == subject.as_str(),
            (filter, _) => filter == subject.as_str(),
        };
        let trouble = if config.deliver_subject.is_some() {
            "the group exists as a push consumer; delete it, or use another name"
        } else if config.ack_policy != AckPolicy::Explicit {
            "the group exists without explicit acknowledgement; delete it, or use another name"
        } else if !filter_fits {
            "the group exists for another topic of the same stream, or for all; use another name"
        } else if config.headers_only {
            "the group exists for headers only; use another name"
        } else {
            return Ok(info);
        };
        Err(Error::new(ErrorKind::Conflict, trouble).with_context("consumer", self.name))
    }
}

//! The kinds of servers, their names and the scripts that run them.

use std::path::Path;
use std::process::{Command, Stdio};

/// The servers of the testbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Kafka,
    RabbitMq,
    Nats,
    Redis,
    RabbitMq4,
    Redis8,
    Valkey,
    Jaeger,
    Collector,
    Prometheus,
    /// The port mapper of a cluster of RabbitMQ.
    Epmd,
}

impl Kind {
    pub(crate) const BROKERS: [Self; 4] = [Self::Kafka, Self::RabbitMq, Self::Nats, Self::Redis];

    /// The later releases of those brokers, beside the oldest supported ones.
    pub(crate) const GENERATIONS: [Self; 3] = [Self::RabbitMq4, Self::Redis8, Self::Valkey];

    /// Returns the variable with the address of a user-supplied server; [`shared`](super::shared)
    /// reads it.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Kafka => "TRACED_BROKER_KAFKA_URL",
            Self::RabbitMq => "TRACED_BROKER_AMQP_URL",
            Self::Nats => "TRACED_BROKER_NATS_URL",
            Self::Redis => "TRACED_BROKER_REDIS_URL",
            Self::RabbitMq4 => "TRACED_BROKER_RABBITMQ_4_URL",
            Self::Redis8 => "TRACED_BROKER_REDIS_8_URL",
            Self::Valkey => "TRACED_BROKER_VALKEY_URL",
            Self::Jaeger => "TRACED_BROKER_JAEGER_URL",
            Self::Collector => "TRACED_BROKER_COLLECTOR_URL",
            Self::Prometheus => "TRACED_BROKER_PROMETHEUS_URL",
            Self::Epmd => "TRACED_BROKER_EPMD_URL",
        }
    }

    /// Returns the server for the tests of an adapter: this one, or the later generation of it that
    /// `TRACED_BROKER_GENERATION` names.
    ///
    /// # Panics
    /// If the variable names no generation of this broker.
    pub(crate) fn of_generation(self) -> Self {
        let Some(name) = std::env::var("TRACED_BROKER_GENERATION").ok().filter(|name| !name.is_empty()) else {
            return self;
        };
        let named = Self::GENERATIONS.into_iter().find(|kind| kind.script_name() == name);
        let found = named.filter(|kind| kind.scheme() == self.scheme());
        found.unwrap_or_else(|| panic!("{name} is no generation of {self:?}"))
    }

    /// Returns the address in the environment, if there is one.
    pub(crate) fn given(self) -> Option<String> {
        std::env::var(self.variable()).ok().filter(|url| !url.is_empty())
    }

    /// Returns the scheme of its address.
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::RabbitMq | Self::RabbitMq4 => "amqp",
            Self::Redis | Self::Redis8 | Self::Valkey => "redis",
            Self::Kafka => "kafka",
            Self::Nats => "nats",
            Self::Jaeger | Self::Collector | Self::Prometheus => "http",
            Self::Epmd => "epmd",
        }
    }

    /// Returns the number of its consecutive ports; its script describes their use.
    pub(super) fn ports(self) -> u16 {
        match self {
            Self::Jaeger => 4,
            Self::Collector => 5,
            _ => 1,
        }
    }

    /// Returns the name of its script.
    pub(super) fn script_name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::RabbitMq => "rabbitmq",
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::RabbitMq4 => "rabbitmq-4",
            Self::Redis8 => "redis-8",
            Self::Valkey => "valkey",
            Self::Jaeger => "jaeger",
            Self::Collector => "collector",
            Self::Prometheus => "prometheus",
            Self::Epmd => "epmd",
        }
    }

    /// Returns a call of its script in `tests/testbed`, without standard input.
    pub(super) fn script(self, verb: &str) -> Command {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed");
        let mut command = Command::new(folder.join(self.script_name()));
        command.arg(verb).stdin(Stdio::null());
        command
    }
}

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
    Jaeger,
    Collector,
    Prometheus,
}

impl Kind {
    pub(crate) const BROKERS: [Self; 4] = [Self::Kafka, Self::RabbitMq, Self::Nats, Self::Redis];

    /// Returns the variable with the address of a user-supplied server; [`shared`](super::shared)
    /// reads it.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Kafka => "TRACED_BROKER_KAFKA_URL",
            Self::RabbitMq => "TRACED_BROKER_AMQP_URL",
            Self::Nats => "TRACED_BROKER_NATS_URL",
            Self::Redis => "TRACED_BROKER_REDIS_URL",
            Self::Jaeger => "TRACED_BROKER_JAEGER_URL",
            Self::Collector => "TRACED_BROKER_COLLECTOR_URL",
            Self::Prometheus => "TRACED_BROKER_PROMETHEUS_URL",
        }
    }

    /// Returns the address in the environment, if there is one.
    pub(crate) fn given(self) -> Option<String> {
        std::env::var(self.variable()).ok().filter(|url| !url.is_empty())
    }

    /// Returns the scheme of its address.
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::RabbitMq => "amqp",
            Self::Kafka | Self::Nats | Self::Redis => self.script_name(),
            Self::Jaeger | Self::Collector | Self::Prometheus => "http",
        }
    }

    /// Returns the number of its consecutive ports; its script describes their use.
    pub(super) fn ports(self) -> u16 {
        match self {
            Self::Kafka | Self::RabbitMq | Self::Nats | Self::Redis | Self::Prometheus => 1,
            Self::Jaeger => 4,
            Self::Collector => 5,
        }
    }

    /// Returns the name of its script.
    pub(super) fn script_name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::RabbitMq => "rabbitmq",
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Jaeger => "jaeger",
            Self::Collector => "collector",
            Self::Prometheus => "prometheus",
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

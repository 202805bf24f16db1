//! The names of scenarios, brokers and lengths.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Scenario {
    /// No fault.
    Calm,
    /// The server is killed and started again.
    Kill,
    /// The server is stopped in order and started again.
    Restart,
    /// The server is stopped by SIGSTOP for a while.
    Pause,
    /// Connections are reset in the middle of a frame.
    Cuts,
    /// Data arrives in small pieces, and later with a delay and little throughput.
    Slices,
    /// Connections swallow everything without being closed.
    Hole,
    /// The server is not there when the clients start.
    Absent,
    /// Processes of consumers are killed in the middle of their handlers.
    Worker,
    /// Publishes are dropped before their answer.
    Cancel,
    /// An operator deletes the topic while it is in use.
    DeleteTopic,
    /// An operator deletes the groups while they are in use.
    DeleteGroup,
    /// A server of a cluster is killed and started again: the leader of the topic; on Redis, the
    /// replica.
    Cluster,
    /// The server of a cluster that leads the topic is cut off from the others for a while. Clients
    /// reach all of them.
    Split,
    /// The disk of the server is full for a while.
    Disk,
    /// The user of the clients loses its rights for a while.
    Credentials,
    /// The clock of the server jumps forward and back.
    Clock,
    /// No fault for minutes, after which the memory of the consumers is judged.
    Soak,
    /// A broker is used in several tokio runtimes, also after the first of them has ended.
    Runtimes,
}

impl Scenario {
    /// Returns `true` if the scenario can happen on the broker.
    pub(crate) fn is_for(self, broker: Broker) -> bool {
        match broker {
            Broker::Memory => matches!(self, Self::Calm | Self::Cancel | Self::Runtimes),
            // A group of Kafka that has members cannot be deleted. With libfaketime its server is
            // not ready in 90 seconds: requests between its own threads time out.
            Broker::Kafka => !matches!(self, Self::DeleteGroup | Self::Clock),
            // Its server is a static program, which libfaketime cannot give another clock.
            Broker::Nats => self != Self::Clock,
            // A replica that is cut off from its primary has no clients.
            Broker::Redis => self != Self::Split,
            Broker::Amqp => true,
        }
    }

    /// Returns `true` if the connections pass through the fault proxy.
    pub(crate) fn needs_proxy(self) -> bool {
        matches!(self, Self::Cuts | Self::Slices | Self::Hole)
    }

    /// Returns the description in the list of scenarios.
    pub(crate) fn describe(self) -> String {
        let help = self.to_possible_value().and_then(|value| value.get_help().cloned());
        help.map(|text| text.to_string()).unwrap_or_default()
    }
}

/// A broker under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Broker {
    Memory,
    Kafka,
    Amqp,
    Nats,
    Redis,
}

impl Broker {
    /// Returns `true` if the broker answers settlements, so that a settled message is gone.
    pub(crate) fn confirms_settlements(self) -> bool {
        matches!(self, Self::Memory | Self::Redis)
    }

    /// Returns the maximum time from healing to progress: a killed member of Kafka's classic groups
    /// is missed after 20 seconds, and at the next restart again.
    pub(crate) fn recovery(self) -> Duration {
        Duration::from_secs(if self == Self::Kafka { 30 } else { 10 })
    }
}

/// The duration of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// A few seconds with one fault.
    Short,
    Normal,
    /// Minutes, with faults longer than time-outs.
    Long,
}

macro_rules! named {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.to_possible_value().as_ref().map(|value| value.get_name()).unwrap_or_default())
            }
        }
    )*};
}
named!(Scenario, Broker);

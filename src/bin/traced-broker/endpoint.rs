//! The broker and topic that a command works on.
//!
//! They are always two arguments, never one URL: the path of a URL is the virtual host on RabbitMQ
//! and the database on Redis, and its query holds options, so a topic within it would be ambiguous.

use std::borrow::Cow;

use clap::Args;
use traced_broker::{Broker, BrokerUrl, Error, ErrorKind, Subscription, TracedBroker as _};

use crate::error::{CliError, chain};

/// A broker and a topic. Not `Debug`, because the URL may hold a password.
#[derive(Args, Clone)]
pub(crate) struct Endpoint {
    /// The broker, such as kafka://localhost:9092 or amqp://user:password@localhost/vhost
    pub(crate) url: String,
    /// The topic: a topic of Kafka, an exchange of RabbitMQ, a subject of NATS, a stream of Redis
    pub(crate) topic: String,
}

/// The handling of a missing topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    /// Follows the URL's option `topology`, which by default creates the topic.
    AsConfigured,
    /// Creates nothing unless the URL asks for it; for commands that only read.
    CheckOnly,
}

impl Endpoint {
    pub(crate) async fn connect(&self, topology: Topology) -> Result<Broker, CliError> {
        let url = match topology {
            Topology::AsConfigured => Cow::Borrowed(&*self.url),
            Topology::CheckOnly => check_only(&self.url),
        };
        let connected = traced_broker::connect(url).await;
        connected.map_err(|error| {
            CliError::with_source(format_args!("cannot connect to {}", without_secrets(&self.url)), &error)
        })
    }

    /// Returns a subscription without a group, which takes no message from other consumers.
    pub(crate) fn observe(&self) -> Subscription {
        // Messages need not be redelivered, and brokers without acknowledgements support only this
        // mode.
        Subscription::new(&self.topic).at_most_once()
    }

    /// Describes the topic and the broker for people.
    pub(crate) fn description(&self) -> String {
        format!("{} at {}", self.topic, without_secrets(&self.url))
    }

    /// Returns the error of an action on the topic, with a hint for the user.
    pub(crate) fn error(&self, action: &str, error: &Error) -> CliError {
        let hint = match (error.kind(), BrokerUrl::parse(&self.url).as_ref().map(BrokerUrl::scheme)) {
            (ErrorKind::NotFound, Ok("amqp")) => {
                "; on RabbitMQ a topic is an exchange: add the option topology=create to the URL to create it; \
                 a queue without an exchange cannot be observed without taking its messages"
            }
            (ErrorKind::NotFound, _) => "; to create it, add the option topology=create to the URL",
            _ => "",
        };
        CliError::new(format!("cannot {action} {}: {}{hint}", self.description(), chain(error)))
    }
}

/// Closes a broker once the work is done.
pub(crate) async fn close(broker: &Broker) -> Result<(), CliError> {
    broker.close().await.map_err(|error| CliError::with_source("cannot close the connection", &error))
}

/// Returns the scheme and hosts of the URL, which identify the broker without secrets.
pub(crate) fn without_secrets(url: &str) -> String {
    let Ok(url) = BrokerUrl::parse(url) else { return "the broker".to_owned() };
    let hosts: Vec<String> = url.hosts(0).into_iter().map(|(host, port)| host_and_port(host, port)).collect();
    format!("{}://{}", url.scheme(), hosts.join(","))
}

fn host_and_port(host: String, port: u16) -> String {
    if port == 0 { host } else { format!("{host}:{port}") }
}

/// Adds the option `topology=check` to the URL, unless it already sets `topology`.
fn check_only(url: &str) -> Cow<'_, str> {
    let options = url.split_once('?').map_or("", |(_, options)| options);
    if options.split('&').any(|option| option.starts_with("topology=")) || url.contains('#') {
        return Cow::Borrowed(url);
    }
    let separator = if url.contains('?') { '&' } else { '?' };
    Cow::Owned(format!("{url}{separator}topology=check"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_only_read_create_nothing() {
        assert_eq!(check_only("nats://h"), "nats://h?topology=check");
        assert_eq!(check_only("redis://u:p?@h/0"), "redis://u:p?@h/0&topology=check");
        assert_eq!(check_only("amqp://h/v?name=x"), "amqp://h/v?name=x&topology=check");
        for chosen in ["kafka://h?topology=create", "kafka://h?linger=0&topology=check"] {
            assert_eq!(check_only(chosen), chosen);
        }
    }

    #[test]
    fn a_broker_is_shown_without_secrets() {
        assert_eq!(
            without_secrets("amqp://me:topsecret@rabbit-1:5673,rabbit-2/vhost?name=topsecret"),
            "amqp://rabbit-1:5673,rabbit-2"
        );
        assert_eq!(without_secrets("topsecret"), "the broker");
    }
}

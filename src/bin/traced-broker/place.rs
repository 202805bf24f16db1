//! Where messages go and come from: the URL of a broker, and a topic there.
//!
//! Everywhere two words of the command line, and never one: what follows the host of a URL is the virtual host on RabbitMQ and the
//! database on Redis, and options come last, so that a topic within it could not be told from those.

use std::borrow::Cow;

use clap::Args;
use traced_broker::{Broker, BrokerUrl, Error, ErrorKind, Subscription, TracedBroker as _};

use crate::trouble::{Trouble, chain};

/// A broker and a topic. The URL may hold a password, so that this cannot be printed.
#[derive(Args)]
pub(crate) struct Place {
    /// The broker, as kafka://localhost:9092 or amqp://user:password@localhost/vhost
    pub(crate) url: String,
    /// The topic there: a topic of Kafka, an exchange of RabbitMQ, a subject of NATS, a stream of Redis
    pub(crate) topic: String,
}

/// Whether a topic that is missing may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// By the broker's option `topology`, which is to make it.
    ByOption,
    /// Who only looks makes nothing, unless the URL says so.
    IsTrouble,
}

impl Place {
    pub(crate) async fn connect(&self, missing: Missing) -> Result<Broker, Trouble> {
        connect(&self.url, missing).await
    }

    /// A subscription without a group, of which nobody else notices anything.
    pub(crate) fn watched(&self) -> Subscription {
        // Nothing is to come again, and where messages are not acknowledged at all this is the only way.
        Subscription::new(&self.topic).at_most_once()
    }

    /// The topic and the broker, for people.
    pub(crate) fn shown(&self) -> String {
        format!("{} at {}", self.topic, shown(&self.url))
    }

    /// What went wrong with the topic, and what can be done about it.
    pub(crate) fn trouble(&self, what: &str, error: &Error) -> Trouble {
        let hint = match (error.kind(), BrokerUrl::parse(&self.url).as_ref().map(BrokerUrl::scheme)) {
            (ErrorKind::NotFound, Ok("amqp")) => {
                "; a topic is an exchange here, which the option topology=create of the URL makes; a queue alone cannot be \
                 watched without taking its messages"
            }
            (ErrorKind::NotFound, _) => "; to have it made, add the option topology=create to the URL",
            _ => "",
        };
        Trouble::new(format!("cannot {what} {}: {}{hint}", self.shown(), chain(error)))
    }
}

async fn connect(url: &str, missing: Missing) -> Result<Broker, Trouble> {
    let asked = match missing {
        Missing::ByOption => Cow::Borrowed(url),
        Missing::IsTrouble => only_checking(url),
    };
    let connected = traced_broker::connect(asked).await;
    connected.map_err(|error| Trouble::because(format_args!("cannot connect to {}", shown(url)), &error))
}

/// Closes a broker once the work is done.
pub(crate) async fn close(broker: &Broker) -> Result<(), Trouble> {
    broker.close().await.map_err(|error| Trouble::because("cannot close the connection", &error))
}

/// Scheme and hosts: enough to tell two brokers apart, and no secret.
pub(crate) fn shown(url: &str) -> String {
    let Ok(url) = BrokerUrl::parse(url) else { return "the broker".to_owned() };
    let hosts: Vec<String> = url.hosts(0).into_iter().map(|(host, port)| host_and_port(host, port)).collect();
    format!("{}://{}", url.scheme(), hosts.join(","))
}

fn host_and_port(host: String, port: u16) -> String {
    if port == 0 { host } else { format!("{host}:{port}") }
}

/// The URL with the option that forbids to make what is missing, unless it says something about that itself.
fn only_checking(url: &str) -> Cow<'_, str> {
    let options = url.split_once('?').map_or("", |(_, options)| options);
    if options.split('&').any(|option| option.starts_with("topology=")) || url.contains('#') {
        return Cow::Borrowed(url);
    }
    let lead = if url.contains('?') { '&' } else { '?' };
    Cow::Owned(format!("{url}{lead}topology=check"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_looks_makes_nothing() {
        assert_eq!(only_checking("nats://h"), "nats://h?topology=check");
        assert_eq!(only_checking("redis://u:p?@h/0"), "redis://u:p?@h/0&topology=check");
        assert_eq!(only_checking("amqp://h/v?name=x"), "amqp://h/v?name=x&topology=check");
        for chosen in ["kafka://h?topology=create", "kafka://h?linger=0&topology=check"] {
            assert_eq!(only_checking(chosen), chosen);
        }
    }

    #[test]
    fn a_broker_is_shown_without_secrets() {
        assert_eq!(
            shown("amqp://me:topsecret@rabbit-1:5673,rabbit-2/vhost?name=topsecret"),
            "amqp://rabbit-1:5673,rabbit-2"
        );
        assert_eq!(shown("topsecret"), "the broker");
    }
}

//! Several servers that are one broker.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::thread;

use super::kind::Kind;
use super::place::free_ports;
use super::server::Server;

/// The nodes of a cluster on 127.0.0.1: three of Kafka, RabbitMQ or NATS, which keep each message
/// on all of them, or a primary of Redis and its replica. Dropping it ends them.
pub(crate) struct Cluster {
    nodes: Vec<Arc<Server>>,
    /// The port mapper of RabbitMQ. It is declared after the nodes, so that it ends after them.
    _mapper: Option<Server>,
}

impl Cluster {
    /// Starts all nodes and waits until each one answers and knows the others.
    ///
    /// # Errors
    /// The reason why a node does not start.
    pub(crate) fn try_start(kind: Kind) -> Result<Self, String> {
        let size = if kind == Kind::Redis { 2 } else { 3 };
        let first = free_ports(2 * size + 1);
        let mapper = first + 2 * size;
        let ports = |from: u16| (from..from + size).map(|port| port.to_string()).collect::<Vec<_>>().join(" ");
        let mut shared = vec![
            ("CLUSTER_PORTS", ports(first)),
            ("CLUSTER_PEERS", ports(first + size)),
            // The standard library's only source of randomness.
            ("CLUSTER_COOKIE", format!("{:x}", RandomState::new().hash_one(first))),
        ];
        let needs_mapper = kind == Kind::RabbitMq;
        let _mapper = needs_mapper.then(|| Server::try_start_at(Kind::Epmd, mapper, Vec::new())).transpose()?;
        if needs_mapper {
            shared.push(("CLUSTER_MAPPER", mapper.to_string()));
        }
        // At the same time, because none of them is ready without the others.
        let starting: Vec<_> = (1..=size)
            .map(|number| {
                let mut environment = shared.clone();
                environment.push(("CLUSTER_NODE", number.to_string()));
                thread::spawn(move || Server::try_start_at(kind, first + number - 1, environment))
            })
            .collect();
        let nodes = starting.into_iter().map(|node| node.join().map_err(|_| format!("{kind:?}: a node panicked"))?);
        Ok(Self { nodes: nodes.map(|node| node.map(Arc::new)).collect::<Result<_, _>>()?, _mapper })
    }

    /// Returns the nodes. Those of Redis are the primary and its replica.
    pub(crate) fn nodes(&self) -> &[Arc<Server>] {
        &self.nodes
    }

    /// Returns the address with all nodes; of Redis, the primary alone.
    pub(crate) fn url(&self) -> String {
        let first = &self.nodes[0];
        if first.kind() == Kind::Redis {
            return first.url();
        }
        let others = self.nodes[1..].iter().map(|node| format!(",127.0.0.1:{}", node.port()));
        first.url() + &others.collect::<String>()
    }
}

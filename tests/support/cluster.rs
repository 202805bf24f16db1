//! Several servers that are one broker.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use super::kind::Kind;
use super::place::free_ports;
use super::server::Server;

/// The ports of a cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    kind: Kind,
    size: u16,
    first: u16,
}

impl Ports {
    /// Returns free ports.
    pub(crate) fn free(kind: Kind) -> Self {
        let size = if kind == Kind::Redis { 2 } else { 3 };
        Self { kind, size, first: free_ports(3 * size + 1) }
    }

    /// Returns the port of RabbitMQ's port mapper.
    fn mapper(self) -> u16 {
        self.first + 3 * self.size
    }

    /// Returns the ways from each node to each other one, of a cluster whose nodes are apart: the
    /// numbers of both from 0 on, the address that the first connects to, and the port of the
    /// second on 127.0.0.1.
    pub(crate) fn between(self) -> Vec<(usize, usize, SocketAddr, u16)> {
        let nodes = (1..=self.size).flat_map(|from| (1..=self.size).map(move |to| (from, to)));
        let ways = nodes.filter(|(from, to)| from != to).flat_map(|(from, to)| {
            let peers = [self.first + self.size + to - 1, self.first + 2 * self.size + to - 1, self.mapper()];
            let used = match self.kind {
                Kind::Kafka => &peers[..2],
                Kind::RabbitMq => &[peers[0], peers[2]][..],
                _ => &peers[..1],
            };
            let at = |port: u16| {
                let [from, to] = [from, to].map(|number| number as u8);
                SocketAddr::from(([127, 0, 10 + from, to], port))
            };
            used.iter().map(|port| (usize::from(from - 1), usize::from(to - 1), at(*port), *port)).collect::<Vec<_>>()
        });
        ways.collect()
    }
}

/// A cluster whose nodes are about to be started.
struct Start {
    ports: Ports,
    /// The environment variables of all nodes.
    shared: Vec<(&'static str, String)>,
    mapper: Option<Server>,
}

impl Start {
    fn new(ports: Ports, mut shared: Vec<(&'static str, String)>) -> Result<Self, String> {
        let Ports { kind, size, first } = ports;
        let row = |from: u16| (from..from + size).map(|port| port.to_string()).collect::<Vec<_>>().join(" ");
        shared.extend([
            ("CLUSTER_PORTS", row(first)),
            ("CLUSTER_PEERS", row(first + size)),
            ("CLUSTER_BROKERS", row(first + 2 * size)),
            // The standard library's only source of randomness.
            ("CLUSTER_COOKIE", format!("{:x}", RandomState::new().hash_one(first))),
        ]);
        let needs_mapper = kind == Kind::RabbitMq;
        let mapper = needs_mapper.then(|| Server::try_start_at(Kind::Epmd, ports.mapper(), Vec::new())).transpose()?;
        if needs_mapper {
            shared.push(("CLUSTER_MAPPER", ports.mapper().to_string()));
        }
        Ok(Self { ports, shared, mapper })
    }

    /// Starts the node of this number, from 0 on.
    fn node(&self, number: u16) -> Result<Arc<Server>, String> {
        let mut environment = self.shared.clone();
        environment.push(("CLUSTER_NODE", (number + 1).to_string()));
        Server::try_start_at(self.ports.kind, self.ports.first + number, environment).map(Arc::new)
    }

    /// Starts all nodes at the same time, because none of them is ready without the others.
    fn all(&self) -> Result<Vec<Arc<Server>>, String> {
        thread::scope(|scope| {
            let starting: Vec<_> = (0..self.ports.size).map(|number| scope.spawn(move || self.node(number))).collect();
            let kind = self.ports.kind;
            let started =
                starting.into_iter().map(|node| node.join().map_err(|_| format!("{kind:?}: a node panicked"))?);
            started.collect()
        })
    }

    fn into_cluster(self, nodes: Vec<Arc<Server>>) -> Cluster {
        Cluster { nodes, _mapper: self.mapper }
    }
}

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
        let start = Start::new(Ports::free(kind), Vec::new())?;
        let nodes = start.all()?;
        Ok(start.into_cluster(nodes))
    }

    /// Starts nodes that reach each other at [`Ports::between`] only. `open` is called with the
    /// number of a node, and has to listen on the ways to it and to pass connections on.
    ///
    /// # Errors
    /// The reason why a node does not start, or the error of `open`.
    pub(crate) fn try_start_apart(
        ports: Ports,
        mut open: impl FnMut(usize) -> Result<(), String>,
    ) -> Result<Self, String> {
        let start = Start::new(ports, vec![("CLUSTER_APART", "yes".to_owned())])?;
        let numbers = 0..ports.size;
        let nodes = if ports.kind == Kind::RabbitMq {
            // One by one: a node begins only if its port is in use at no address, and the next one
            // asks those before it.
            let started = numbers.map(|number| {
                let node = start.node(number)?;
                open(number.into())?;
                Ok(node)
            });
            started.collect::<Result<_, String>>()?
        } else {
            numbers.into_iter().try_for_each(|number| open(number.into()))?;
            start.all()?
        };
        Ok(start.into_cluster(nodes))
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

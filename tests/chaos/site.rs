//! The server of a run, with the proxy before it if the scenario needs one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::credentials;
use crate::plan::Air;
use crate::proxy::Proxy;
use crate::recorder::Recorder;
use crate::scenario::{Broker, Scenario};
use crate::secrets;
use crate::support::{Cluster, Disk, Kind, Ports, Server};

impl Broker {
    /// Returns the kind of its server; `None` for the embedded broker.
    pub(crate) fn kind(self) -> Option<Kind> {
        match self {
            Self::Memory => None,
            Self::Kafka => Some(Kind::Kafka),
            Self::Amqp => Some(Kind::RabbitMq),
            Self::Nats => Some(Kind::Nats),
            Self::Redis => Some(Kind::Redis),
        }
    }
}

/// The size of a disk in MiB.
const DISK: u32 = 256;

/// The running servers that belong to one run.
#[derive(Default)]
pub(crate) struct Site {
    servers: Vec<Arc<Server>>,
    cluster: Option<Cluster>,
    disk: Option<Arc<Disk>>,
    proxy: Option<Proxy>,
    /// Those between the servers of a cluster, with the numbers of both.
    between: Vec<(usize, usize, Proxy)>,
    /// The address for clients.
    pub(crate) url: String,
    /// The address for operators, who do not pass through the proxy.
    pub(crate) direct: String,
}

impl Site {
    /// Starts the servers that the scenario needs, with a proxy before them if it needs one.
    ///
    /// # Errors
    /// The reason for which a server does not start.
    pub(crate) async fn start(
        broker: Broker,
        scenario: Scenario,
        seed: u64,
        recorder: &Recorder,
    ) -> Result<Self, String> {
        let Some(kind) = broker.kind() else {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let url = format!("memory://chaos-{}", NEXT.fetch_add(1, Ordering::Relaxed));
            return Ok(Self { direct: url.clone(), url, ..Self::default() });
        };
        match scenario {
            Scenario::Cluster => Self::of_cluster(blocking(move || Cluster::try_start(kind)).await??),
            Scenario::Split => Self::of_parts(kind, seed, recorder).await,
            Scenario::Disk => blocking(move || Self::on_disk(kind)).await?,
            Scenario::Credentials => {
                let (server, url) = blocking(move || credentials::start(kind)).await??;
                Ok(Self { url, ..Self::of(server) })
            }
            Scenario::Clock => blocking(move || Self::with(kind, ("TESTBED_CLOCK", "yes".to_owned()))).await?,
            _ if scenario.needs_proxy() => Self::behind_proxy(kind, seed, recorder).await,
            _ => Ok(Self::of(blocking(move || Server::try_start(kind)).await??)),
        }
    }

    fn of(server: Server) -> Self {
        Self { url: server.url(), direct: server.url(), servers: vec![Arc::new(server)], ..Self::default() }
    }

    fn with(kind: Kind, variable: (&'static str, String)) -> Result<Self, String> {
        Server::try_start_at(kind, Server::free_port(kind), vec![variable]).map(Self::of)
    }

    fn on_disk(kind: Kind) -> Result<Self, String> {
        let disk = Disk::try_start(DISK)?;
        let site = Self::with(kind, disk.environment())?;
        Ok(Self { disk: Some(Arc::new(disk)), ..site })
    }

    fn of_cluster(cluster: Cluster) -> Result<Self, String> {
        let servers = cluster.nodes().to_vec();
        let first = servers.first().ok_or("a cluster has nodes")?;
        // Everything is led by one server, and all keep it, by the settings of the others.
        let options = match first.kind() {
            Kind::Nats => "?replicas=3",
            Kind::Kafka => "?partitions=1",
            _ => "",
        };
        let (url, direct) = (cluster.url() + options, first.url());
        Ok(Self { servers, cluster: Some(cluster), url, direct, ..Self::default() })
    }

    /// Starts a cluster whose servers reach each other through proxies.
    async fn of_parts(kind: Kind, seed: u64, recorder: &Recorder) -> Result<Self, String> {
        let (recorder, runtime) = (recorder.clone(), Handle::current());
        let started = blocking(move || {
            let (ports, mut between) = (Ports::free(kind), Vec::new());
            let open = |number| {
                for (from, to, address, port) in ports.between().into_iter().filter(|(_, to, ..)| *to == number) {
                    let proxy = runtime.block_on(Proxy::start(address, port, seed, recorder.clone()));
                    between.push((from, to, proxy.map_err(|error| format!("no proxy at {address}: {error}"))?));
                }
                Ok(())
            };
            Cluster::try_start_apart(ports, open).map(|cluster| (cluster, between))
        });
        let (cluster, between) = started.await??;
        Ok(Self { between, ..Self::of_cluster(cluster)? })
    }

    async fn behind_proxy(kind: Kind, seed: u64, recorder: &Recorder) -> Result<Self, String> {
        let port = blocking(move || Server::free_port(kind)).await?;
        // Kafka's clients connect to the address that the server tells them.
        let advertised = format!("advertised.listeners=CLIENTS://127.0.0.1:{port}");
        let server = blocking(move || {
            let own = Server::free_port(kind);
            Server::start_at(kind, own, vec![("KAFKA_PROPERTIES", advertised)])
        });
        let server = server.await?;
        let address = ([127, 0, 0, 1], port).into();
        let proxy = Proxy::start(address, server.port(), seed, recorder.clone()).await;
        let proxy = proxy.map_err(|error| format!("the proxy does not start: {error}"))?;
        let direct = server.url();
        let url = direct.replace(&server.port().to_string(), &port.to_string());
        Ok(Self { servers: vec![Arc::new(server)], proxy: Some(proxy), url, direct, ..Self::default() })
    }

    /// Returns the server of this number; 0 is the only one, or the first of a cluster.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn server(&self, number: usize) -> Result<Arc<Server>, String> {
        self.servers.get(number).cloned().ok_or_else(|| format!("there is no server {number}"))
    }

    /// Returns all servers.
    pub(crate) fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// Returns the number of the server at this port.
    pub(crate) fn number_at(&self, port: u16) -> Option<usize> {
        self.servers.iter().position(|server| server.port() == port)
    }

    /// Does something to a server that blocks.
    ///
    /// # Errors
    /// The panic of the testbed.
    pub(crate) async fn on_server(&self, number: usize, act: fn(&Server)) -> Result<(), String> {
        let server = self.server(number)?;
        blocking(move || act(&server)).await
    }

    /// Fills the disk of the server, or frees it.
    ///
    /// # Errors
    /// The error of the file system.
    pub(crate) async fn on_disk_of_server(
        &self,
        act: impl FnOnce(&Disk) -> io::Result<()> + Send + 'static,
    ) -> Result<(), String> {
        let disk = self.disk.clone().ok_or("the server has no disk of its own")?;
        blocking(move || act(&disk)).await?.map_err(|error| format!("the disk: {error}"))
    }

    /// Sets the clock of the server to this many seconds from now.
    ///
    /// # Errors
    /// The file that the clock follows cannot be written.
    pub(crate) fn set_clock(&self, offset: i32) -> Result<(), String> {
        let file = self.server(0)?.directory().join("clock");
        std::fs::write(file, format!("{offset:+}\n")).map_err(|error| format!("the clock: {error}"))
    }

    /// Changes the state of the connections.
    pub(crate) fn set(&self, air: Air) {
        if let Some(proxy) = &self.proxy {
            proxy.set(air);
        }
    }

    /// Cuts a server of a cluster off from the others.
    pub(crate) fn cut_off(&self, number: usize) {
        let ways = self.between.iter().filter(|(from, to, _)| [*from, *to].contains(&number));
        ways.for_each(|(_, _, proxy)| proxy.set(Air::Hole));
    }

    /// Joins the servers of a cluster again.
    pub(crate) fn join(&self) {
        self.between.iter().for_each(|(_, _, proxy)| proxy.set(Air::Clear));
    }

    /// Ends the servers.
    pub(crate) async fn end(self) {
        drop((self.proxy, self.between));
        let _ended = blocking(move || drop((self.servers, self.cluster, self.disk))).await;
    }
}

/// Does something that blocks.
///
/// # Errors
/// Its panic.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

/// Connects as an application does that waits for its broker.
pub(crate) async fn connect_patiently(url: &str) -> traced_broker::Broker {
    loop {
        match traced_broker::connect(url).await {
            Ok(broker) => {
                secrets::look("the broker", &broker);
                return broker;
            }
            Err(error) => secrets::look("connecting", &error),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

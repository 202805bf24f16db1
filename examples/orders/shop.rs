//! All of the services: opened together, closed in order.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures_util::future::join_all;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use traced_broker::driver::Driver as _;
use traced_broker::{Broker, ErrorKind, TracedBroker as _, connect};

use crate::api::{self, Api};
use crate::books::Books;
use crate::ledger::{Ledger, Tally};
use crate::reconciliation::{self, JobTable};
use crate::run::Run;
use crate::telemetry::{Telemetry, tracer};
use crate::{dead_letters, fulfillment, notification};

/// How long a broker may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(20);
/// How long nothing may happen to the orders that are still open. After a run that was killed, Kafka waits 45 seconds
/// for its readers to come back before others get their partitions.
const PATIENCE: Duration = Duration::from_secs(90);

/// The running system. Every service has its own connection to the broker and its own tracer provider.
#[derive(Debug)]
pub(crate) struct Shop {
    run: Run,
    jobs: Arc<JobTable>,
    reconciler: SdkTracer,
    brokers: Vec<Broker>,
    address: SocketAddr,
    /// The API's task and what tells it to stop.
    api: JoinSet<()>,
    closing: CancellationToken,
    readers: JoinSet<()>,
}

impl Shop {
    /// Connects every service and starts it, the API last.
    ///
    /// Readers subscribe before anything is published: where a topic is a set of queues, what no queue is there for is
    /// not kept.
    pub(crate) async fn open(url: &str, port: u16, telemetry: &mut Telemetry) -> Result<Self> {
        let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listening.with_context(|| format!("cannot listen on port {port}; --port takes another"))?;
        let address = listener.local_addr()?;
        let mut shop = Self {
            run: Run::new(),
            jobs: Arc::default(),
            reconciler: tracer(&telemetry.service(reconciliation::SERVICE)?),
            brokers: Vec::new(),
            address,
            api: JoinSet::new(),
            closing: CancellationToken::new(),
            readers: JoinSet::new(),
        };
        let (broker, _) = shop.service(dead_letters::SERVICE, url, telemetry).await?;
        shop.read(dead_letters::start(broker, shop.run.clone()).await?);
        let (broker, tracer) = shop.service(notification::SERVICE, url, telemetry).await?;
        shop.read(notification::start(broker, tracer, shop.run.clone()).await?);
        let (broker, tracer) = shop.service(fulfillment::SERVICE, url, telemetry).await?;
        shop.read(fulfillment::start(broker, tracer, shop.run.clone()).await?);
        let (broker, tracer) = shop.service(api::SERVICE, url, telemetry).await?;
        let api = Api { broker, tracer, run: shop.run.clone(), jobs: Arc::clone(&shop.jobs) };
        shop.serve(listener, api);
        Ok(shop)
    }

    /// Where the API listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.run.ledger
    }

    /// The tally, as it changes.
    pub(crate) fn tally(&self) -> watch::Receiver<Tally> {
        self.run.ledger.watch()
    }

    /// The messaging system and where it is, without credentials.
    pub(crate) fn place(&self) -> String {
        let Some(identity) = self.brokers.first().map(|broker| broker.get_ref().identity()) else {
            return String::new();
        };
        match (&identity.server_address, identity.server_port) {
            (Some(host), Some(port)) => format!("{} at {host}:{port}", identity.system),
            (Some(host), None) => format!("{} at {host}", identity.system),
            (None, _) => identity.system.to_owned(),
        }
    }

    /// Lets every order that was accepted come to its end, reconciles, and disconnects.
    pub(crate) async fn close(mut self) -> Books {
        self.closing.cancel();
        while self.api.join_next().await.is_some() {}
        self.settle().await;
        if let Some(job) = self.jobs.take() {
            job.reconcile(&self.reconciler, &self.run.ledger.books());
        }
        self.run.stop.cancel();
        while let Some(ended) = self.readers.join_next().await {
            if let Err(error) = ended {
                self.run.ledger.trouble(format!("a service ended early: {error}"));
            }
        }
        for closed in join_all(self.brokers.iter().map(|broker| broker.close())).await {
            if let Err(error) = closed {
                self.run.ledger.trouble(error);
            }
        }
        self.run.ledger.books()
    }

    /// Waits until no accepted order is open, or nothing has happened for too long.
    async fn settle(&self) {
        let mut tally = self.tally();
        while !tally.borrow_and_update().is_settled() {
            if timeout(PATIENCE, tally.changed()).await.is_err() {
                let seconds = PATIENCE.as_secs();
                self.run
                    .ledger
                    .trouble(format!("nothing happened for {seconds} s while orders were open: not waiting longer"));
                return;
            }
        }
    }

    async fn service(
        &mut self,
        name: &'static str,
        url: &str,
        telemetry: &mut Telemetry,
    ) -> Result<(Broker, SdkTracer)> {
        let provider = telemetry.service(name)?;
        let broker = connected(url, &provider).await.context("cannot connect to the broker")?;
        self.brokers.push(broker.clone());
        Ok((broker, tracer(&provider)))
    }

    fn read(&mut self, reader: impl Future<Output = ()> + Send + 'static) {
        self.readers.spawn(reader);
    }

    fn serve(&mut self, listener: TcpListener, api: Api) {
        let (router, closing, ledger) = (api.into_router(), self.closing.clone(), Arc::clone(self.ledger()));
        self.api.spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(closing.cancelled_owned()).await;
            if let Err(error) = served {
                ledger.trouble(format!("the API ended: {error}"));
            }
        });
    }
}

async fn connected(url: &str, provider: &SdkTracerProvider) -> Result<Broker> {
    let connected = timeout(CONNECT, connect(url)).await;
    let connected = connected.with_context(|| format!("no answer within {} s", CONNECT.as_secs()))?;
    let broker = connected.map_err(|error| match error.kind() {
        ErrorKind::FeatureDisabled => {
            let feature = url.split(':').next().unwrap_or_default();
            anyhow!(error)
                .context(format!("this program was built without it: cargo run --features {feature} --example orders"))
        }
        _ => anyhow!(error),
    })?;
    Ok(broker.with_tracer_provider(provider))
}

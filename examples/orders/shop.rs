//! The services of one process: opened together, closed in order.

use std::future::Future;
#[cfg(test)]
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures_util::future::join_all;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use traced_broker::driver::Driver as _;
use traced_broker::{Broker, ErrorKind, TracedBroker as _, connect};

use crate::api::{self, Api};
use crate::books::Books;
use crate::cut::Cut;
use crate::ledger::{Ledger, Tally};
use crate::reconciliation::{self, JobTable};
use crate::role::{Role, Roles};
use crate::run::Run;
use crate::telemetry::{Telemetry, tracer};
use crate::{dead_letters, fulfillment, notification};

/// How long a broker may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(20);
/// How long nothing may happen to the orders that are still open. After a run that was killed, Kafka waits 45 seconds
/// for its readers to come back before others get their partitions.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often the job table is looked at by a process that does not know when the day is over.
const LOOK: Duration = Duration::from_secs(1);

/// What a process is to run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) broker: String,
    pub(crate) roles: Roles,
    pub(crate) listen: SocketAddr,
    pub(crate) jobs: Option<PathBuf>,
    pub(crate) cut: Option<Cut>,
}

/// The running services. Each has its own connection to the broker and its own tracer provider.
#[derive(Debug)]
pub(crate) struct Shop {
    run: Run,
    roles: Roles,
    jobs: Arc<JobTable>,
    /// Of the role that goes through the books.
    reconciler: Option<SdkTracerProvider>,
    brokers: Vec<Broker>,
    /// Of the role that serves it.
    address: Option<SocketAddr>,
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
    pub(crate) async fn open(plan: &Plan, telemetry: &mut Telemetry) -> Result<Self> {
        let listener = if plan.roles.has(Role::Api) { Some(listen(plan.listen).await?) } else { None };
        let mut shop = Self {
            run: if plan.roles.are_all() { Run::new() } else { Run::shared() },
            roles: plan.roles.clone(),
            jobs: Arc::new(JobTable::open(plan.jobs.as_deref())?),
            reconciler: None,
            brokers: Vec::new(),
            address: listener.as_ref().and_then(|listener| listener.local_addr().ok()),
            api: JoinSet::new(),
            closing: CancellationToken::new(),
            readers: JoinSet::new(),
        };
        if plan.roles.has(Role::Reconcile) {
            shop.reconciler = Some(telemetry.service(reconciliation::SERVICE)?);
            let (broker, _) = shop.service(dead_letters::SERVICE, plan, telemetry).await?;
            shop.read(dead_letters::start(broker, shop.run.clone()).await?);
        }
        if plan.roles.has(Role::Notify) {
            let (broker, tracer) = shop.service(notification::SERVICE, plan, telemetry).await?;
            shop.read(notification::start(broker, tracer, shop.run.clone()).await?);
        }
        if plan.roles.has(Role::Worker) {
            let (broker, tracer) = shop.service(fulfillment::SERVICE, plan, telemetry).await?;
            shop.read(fulfillment::start(broker, tracer, shop.run.clone()).await?);
        }
        if let Some(listener) = listener {
            let (broker, tracer) = shop.service(api::SERVICE, plan, telemetry).await?;
            let api = Api { broker, tracer, run: shop.run.clone(), jobs: Arc::clone(&shop.jobs) };
            shop.serve(listener, api);
        }
        shop.watch_the_jobs();
        Ok(shop)
    }

    /// Where the API listens, if it is here.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The services that run here.
    pub(crate) fn services(&self) -> String {
        let of = |role, services: &[&'static str]| if self.roles.has(role) { services.to_vec() } else { Vec::new() };
        let all = [
            of(Role::Api, &[api::SERVICE]),
            of(Role::Worker, &[fulfillment::SERVICE]),
            of(Role::Notify, &[notification::SERVICE]),
            of(Role::Reconcile, &[dead_letters::SERVICE, reconciliation::SERVICE]),
        ];
        all.concat().join(", ")
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

    /// Lets every order that was accepted come to its end where that is known, reconciles, and disconnects. What runs finishes in
    /// any case.
    pub(crate) async fn close(mut self) -> Books {
        self.closing.cancel();
        while self.api.join_next().await.is_some() {}
        if let (true, Some(reconciler)) = (self.roles.are_all(), &self.reconciler) {
            self.settle().await;
            reconcile(&self.jobs, reconciler, &self.run.ledger).await;
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
        plan: &Plan,
        telemetry: &mut Telemetry,
    ) -> Result<(Broker, SdkTracer)> {
        let provider = telemetry.service(name)?;
        let broker = connected(&plan.broker, &provider).await.context("cannot connect to the broker")?;
        let broker = plan.cut.map_or_else(|| broker.clone(), |cut| cut.apply(broker.clone()));
        let broker = telemetry.measure(name, broker)?;
        self.brokers.push(broker.clone());
        Ok((broker, tracer(&provider)))
    }

    fn read(&mut self, reader: impl Future<Output = ()> + Send + 'static) {
        self.readers.spawn(reader);
    }

    /// In a process of its own the job runs when it is in the table; the whole system knows when its day is over.
    fn watch_the_jobs(&mut self) {
        let Some(reconciler) = self.reconciler.clone().filter(|_| !self.roles.are_all()) else { return };
        let (jobs, run) = (Arc::clone(&self.jobs), self.run.clone());
        self.read(async move {
            while run.stop.run_until_cancelled(sleep(LOOK)).await.is_some() {
                reconcile(&jobs, &reconciler, &run.ledger).await;
            }
        });
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

/// Does the job that is due, if there is one.
async fn reconcile(jobs: &JobTable, reconciler: &SdkTracerProvider, ledger: &Ledger) {
    let done = async {
        let Some(row) = jobs.due()? else { return Ok(()) };
        jobs.done(&row.reconcile(reconciler, &ledger.books()).await)
    };
    if let Err(error) = done.await {
        ledger.trouble(error);
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listening = TcpListener::bind(address).await;
    listening.with_context(|| format!("cannot listen on port {}; --port takes another", address.port()))
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

#[cfg(test)]
impl Plan {
    /// The whole system over the broker at this URL.
    pub(crate) fn whole(broker: &str) -> Self {
        Self {
            broker: broker.to_owned(),
            roles: Roles::new(&[]),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            jobs: None,
            cut: None,
        }
    }
}

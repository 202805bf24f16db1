//! The services of one process: started together, stopped in order.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::join_all;
use opentelemetry_sdk::trace::SdkTracer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use traced_broker::driver::Driver as _;
use traced_broker::{Broker, Consume, HandlerError, Message, Received, TracedBroker as _, connect};

use crate::api::{self, Api};
use crate::args::{Args, Role};
use crate::ledger::{Account, Books, Ledger};
use crate::reconciliation::{self, JobTable};
use crate::telemetry::{Service, Telemetry};
use crate::{dead_letters, fulfillment, notification};

/// The topic of accepted orders, keyed by customer.
pub(crate) const ORDERS: &str = "orders";
/// The topic of messages to customers.
pub(crate) const NOTIFICATIONS: &str = "notifications";
/// The topic of orders that cannot be fulfilled.
pub(crate) const DEAD_ORDERS: &str = "orders.dead";

/// The header with the run that a message belongs to.
const RUN_ID: &str = "run-id";

/// Maximum time until the broker accepts a connection.
const CONNECT: Duration = Duration::from_secs(20);
/// Maximum time without progress while orders are open. After a run that was killed, Kafka waits
/// 45 seconds for its consumers before others get their partitions.
const PATIENCE: Duration = Duration::from_secs(90);

/// One run of the system, as its services see it. Cheap to clone.
///
/// A durable broker may still hold messages of a run that was killed. Their orders are in no books,
/// so consumers skip every message that is not [stamped](Self::stamp) with this run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    id: Arc<str>,
    pub(crate) ledger: Ledger,
    /// Cancelled when no more messages are expected.
    pub(crate) stop: CancellationToken,
}

impl Run {
    /// Marks a message as part of this run.
    pub(crate) fn stamp(&self, message: Message) -> Message {
        message.header(RUN_ID, &*self.id)
    }

    /// Subscribes, and returns the future that handles the messages of this run until it stops.
    pub(crate) async fn consumer<H, F>(
        &self,
        service: &'static str,
        consume: Consume<'_, Broker, H>,
    ) -> traced_broker::Result<impl Future<Output = ()> + use<H, F>>
    where
        H: Fn(Received) -> F,
        F: Future<Output = Result<(), HandlerError>>,
    {
        let (run, id) = (self.clone(), Arc::clone(&self.id));
        let ours = move |message: &Received| message.headers().get_str(RUN_ID) == Some(&id);
        let consumer = consume.filter(ours).subscribed().await?;
        Ok(async move {
            let report = match consumer.run_until(run.stop.cancelled()).await {
                Ok(report) => report,
                Err(error) => return run.ledger.trouble(format!("{service} stopped: {error}")),
            };
            run.ledger.update(|books| books.leftovers += report.skipped);
            if report.errors + report.unsettled + report.abandoned > 0 {
                run.ledger.trouble(format!("{service}: {report}"));
            }
        })
    }
}

/// The running services. Each has its own connection to the broker and its own tracer provider.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) run: Run,
    /// The address of the API, if it runs here.
    pub(crate) address: Option<SocketAddr>,
    jobs: Arc<JobTable>,
    /// The telemetry of the job, if this process knows when the day is over.
    job: Option<Service>,
    brokers: Vec<Broker>,
    api: JoinSet<()>,
    closing: CancellationToken,
    workers: JoinSet<()>,
}

impl Shop {
    /// Connects and starts every service, the API last.
    ///
    /// Consumers subscribe before anything is published: some brokers drop a message that no group
    /// is subscribed to.
    pub(crate) async fn open(args: &Args, telemetry: &mut Telemetry) -> Result<Self> {
        let listener = if args.runs(Role::Api) { Some(listen(args.address()).await?) } else { None };
        // Processes that are started one by one belong to one run.
        let id = if args.is_whole() { format!("{:016x}", RandomState::new().hash_one(0)) } else { "shared".to_owned() };
        let run = Run { id: id.into(), ledger: Ledger::default(), stop: CancellationToken::new() };
        let mut shop = Self {
            run: run.clone(),
            address: listener.as_ref().and_then(|listener| listener.local_addr().ok()),
            jobs: Arc::new(JobTable::open(args.jobs.as_deref())?),
            job: None,
            brokers: Vec::new(),
            api: JoinSet::new(),
            closing: CancellationToken::new(),
            workers: JoinSet::new(),
        };
        if args.runs(Role::Reconcile) {
            let job = telemetry.service(reconciliation::SERVICE)?;
            if args.is_whole() {
                shop.job = Some(job);
            } else {
                shop.workers.spawn(reconciliation::watch(Arc::clone(&shop.jobs), job, run.clone()));
            }
            let (broker, _) = shop.connect(dead_letters::SERVICE, args, telemetry).await?;
            shop.workers.spawn(dead_letters::start(broker, run.clone()).await?);
        }
        if args.runs(Role::Notify) {
            let (broker, tracer) = shop.connect(notification::SERVICE, args, telemetry).await?;
            shop.workers.spawn(notification::start(broker, tracer, run.clone()).await?);
        }
        if args.runs(Role::Worker) {
            let (broker, tracer) = shop.connect(fulfillment::SERVICE, args, telemetry).await?;
            shop.workers.spawn(fulfillment::start(broker, tracer, run.clone()).await?);
        }
        if let Some(listener) = listener {
            let (broker, tracer) = shop.connect(api::SERVICE, args, telemetry).await?;
            let api = Api { broker, tracer, run: run.clone(), jobs: Arc::clone(&shop.jobs) };
            let server = axum::serve(listener, api.into_router());
            let server = server.with_graceful_shutdown(shop.closing.clone().cancelled_owned());
            shop.api.spawn(async move {
                if let Err(error) = server.await {
                    run.ledger.trouble(format!("the API ended: {error}"));
                }
            });
        }
        Ok(shop)
    }

    /// Returns the messaging system and its address, without credentials.
    pub(crate) fn place(&self) -> String {
        let Some(identity) = self.brokers.first().map(|broker| broker.get_ref().identity()) else {
            return String::new();
        };
        let host = identity.server_address.as_ref().map(|host| format!(" at {host}")).unwrap_or_default();
        let port = identity.server_port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{host}{port}", identity.system)
    }

    /// Stops the API, waits for open orders if all services run here, reconciles, and disconnects.
    /// Work that has begun finishes in any case.
    pub(crate) async fn close(mut self) -> Books {
        let ledger = &self.run.ledger;
        self.closing.cancel();
        while self.api.join_next().await.is_some() {}
        if let Some(job) = &self.job {
            self.settle().await;
            self.jobs.reconcile(job, ledger).await;
        }
        self.run.stop.cancel();
        while let Some(ended) = self.workers.join_next().await {
            if let Err(error) = ended {
                ledger.trouble(format!("a service ended early: {error}"));
            }
        }
        for closed in join_all(self.brokers.iter().map(|broker| broker.close())).await {
            if let Err(error) = closed {
                ledger.trouble(error);
            }
        }
        ledger.books()
    }

    /// Waits until no accepted order is open, or until there is no progress for too long.
    async fn settle(&self) {
        let mut books = self.run.ledger.watch();
        while books.borrow_and_update().count(Account::is_open) > 0 {
            if timeout(PATIENCE, books.changed()).await.is_err() {
                let seconds = PATIENCE.as_secs();
                return self.run.ledger.trouble(format!("orders are open, but there was no progress for {seconds} s"));
            }
        }
    }

    async fn connect(
        &mut self,
        name: &'static str,
        args: &Args,
        telemetry: &mut Telemetry,
    ) -> Result<(Broker, SdkTracer)> {
        let service = telemetry.service(name)?;
        let connected = timeout(CONNECT, connect(&args.broker)).await;
        let connected = connected.with_context(|| format!("no answer within {} s", CONNECT.as_secs()));
        let broker = connected.and_then(|connected| Ok(connected?)).context("cannot connect to the broker")?;
        let broker = service.instrument(broker);
        self.brokers.push(broker.clone());
        Ok((broker, service.tracer()))
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listening = TcpListener::bind(address).await;
    listening.with_context(|| format!("cannot listen on port {}; --port takes another", address.port()))
}

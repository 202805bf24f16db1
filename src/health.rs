//! Whether a broker can be worked with, for the probes of an orchestrator.

use std::fmt;
use std::time::Duration;

use tokio::time::timeout;

use crate::broker::TracedBroker;
use crate::error::{Error, ErrorKind};

/// How long a broker may take to answer before it counts as not ready.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How a broker is doing, as [`health`](crate::TracedBrokerExt::health) found it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Health {
    /// It answered.
    Ready {
        /// How long the round trip took.
        round_trip: Duration,
    },
    /// It does not answer now; a lost connection is being restored, restarting the program would not help.
    NotReady(Error),
    /// This program closed it: it will not come back.
    Closed,
}

impl Health {
    /// Whether messages can be published and consumed now: for a readiness probe.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    /// Whether waiting can help: for a liveness probe. A broker that is down does not make a program dead.
    pub fn is_live(&self) -> bool {
        !matches!(self, Self::Closed)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { round_trip } => write!(f, "ready, answers within {round_trip:?}"),
            Self::NotReady(error) => write!(f, "not ready: {error}"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

pub(crate) async fn check<B: TracedBroker + ?Sized>(broker: &B) -> Health {
    let begun = std::time::Instant::now();
    match timeout(PATIENCE, broker.ping()).await {
        Ok(Ok(())) => Health::Ready { round_trip: begun.elapsed() },
        Ok(Err(error)) if error.kind() == ErrorKind::Closed => Health::Closed,
        Ok(Err(error)) => Health::NotReady(error),
        Err(_) => {
            let error = Error::new(ErrorKind::Timeout, format!("the broker did not answer within {PATIENCE:?}"));
            Health::NotReady(error.with_system(broker.system()).with_operation("ping"))
        }
    }
}

//! The health of a broker, for the probes of an orchestrator.

use std::fmt;
use std::time::Duration;

use tokio::time::timeout;

use crate::broker::TracedBroker;
use crate::error::{Error, ErrorKind};

/// The health of a broker, as [`health`](crate::TracedBrokerExt::health) found it.
///
/// ```
/// use std::time::Duration;
/// use traced_broker::{Error, ErrorKind, Health};
///
/// // A broker that is down makes a program unready, not dead.
/// let down = Health::NotReady(Error::new(ErrorKind::Unavailable, "the broker is away"));
/// assert!(!down.is_ready() && down.is_live());
/// assert_eq!(down.to_string(), "not ready: the broker is away");
/// assert!(!Health::Closed.is_live());
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Health {
    /// The broker answered.
    Ready {
        /// Duration of the round trip.
        round_trip: Duration,
    },
    /// The broker does not answer now. A lost connection is being restored; restarting the program
    /// would not help.
    NotReady(Error),
    /// This program closed the broker, which stays closed.
    Closed,
}

impl Health {
    /// Maximum duration of the check.
    pub const PATIENCE: Duration = Duration::from_secs(5);

    /// Returns `true` if messages can be published and consumed now; for a readiness probe.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    /// Returns `true` unless this program closed the broker; for a liveness probe. A program is
    /// alive even while its broker is down.
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
    match timeout(Health::PATIENCE, broker.ping()).await {
        Ok(Ok(())) => Health::Ready { round_trip: begun.elapsed() },
        Ok(Err(error)) if error.kind() == ErrorKind::Closed => Health::Closed,
        Ok(Err(error)) => Health::NotReady(error),
        Err(_) => {
            let error =
                Error::new(ErrorKind::Timeout, format!("the broker did not answer within {:?}", Health::PATIENCE));
            Health::NotReady(error.with_system(broker.system()).with_operation("ping"))
        }
    }
}

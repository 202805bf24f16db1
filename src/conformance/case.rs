//! Cases as data.

use std::fmt;

use futures_util::future::BoxFuture;

use super::case_context::CaseContext;
use super::failure::Checked;
use super::requirement::Need;

/// The subject of a case; the first part of its name in test output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Area {
    /// Published messages arrive unchanged.
    Delivery,
    /// The order in which messages arrive.
    Order,
    /// Acknowledging, retrying, rejecting, and redelivery.
    Settlement,
    /// The starting positions of groups and readers, and moving groups.
    Positions,
    /// Delayed messages.
    Delays,
    /// Subscribing, cancelling, closing.
    Lifecycle,
    /// Bad input, foreign producers, secrets.
    Hostile,
    /// Trace contexts, in every form and with any propagator.
    Propagation,
    /// The contents of spans.
    Telemetry,
    /// The ways a trace breaks at a queue, checked on exported spans; see
    /// [`breaks`](super::breaks()).
    Trace,
    /// The consumer runtime on top of the adapter.
    Runtime,
    /// High load.
    Stress,
    /// A broker that is killed and restarted.
    Restart,
    /// The contract of drivers, asked of the driver itself.
    Driver,
}

impl Area {
    /// Returns the name in test output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Order => "order",
            Self::Settlement => "settlement",
            Self::Positions => "positions",
            Self::Delays => "delays",
            Self::Lifecycle => "lifecycle",
            Self::Hostile => "hostile",
            Self::Propagation => "propagation",
            Self::Telemetry => "telemetry",
            Self::Trace => "trace",
            Self::Runtime => "runtime",
            Self::Stress => "stress",
            Self::Restart => "restart",
            Self::Driver => "driver",
        }
    }
}

/// One requirement on every broker, with the code that checks it.
#[derive(Clone, Copy)]
pub struct Case {
    pub(super) area: Area,
    pub(super) name: &'static str,
    pub(super) needs: &'static [Need],
    pub(super) requires: &'static str,
    pub(super) check: for<'a> fn(&'a CaseContext) -> BoxFuture<'a, Checked>,
}

impl Case {
    /// Returns the subject of the case.
    pub fn area(&self) -> Area {
        self.area
    }

    /// Returns the name, unique within the area: a sentence about the broker in `snake_case`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the capabilities that the case needs.
    pub fn needs(&self) -> &'static [Need] {
        self.needs
    }

    /// Returns the requirement, in one line.
    pub fn requires(&self) -> &'static str {
        self.requires
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.area.as_str(), self.name)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.to_string())
            .field("needs", &self.needs)
            .field("requires", &self.requires)
            .finish()
    }
}

/// Defines the table of a file's cases: `cases! { Area: name [needs] "what it requires"; … }`.
macro_rules! cases {
    ($area:ident: $($name:ident [$($need:ident),*] $requires:literal;)*) => {
        pub(in crate::conformance) const CASES: &[$crate::conformance::Case] = &[$(
            $crate::conformance::Case {
                area: $crate::conformance::Area::$area,
                name: stringify!($name),
                needs: &[$($crate::conformance::Need::$need),*],
                requires: $requires,
                check: |case| Box::pin($name(case)),
            },
        )*];
    };
}
pub(super) use cases;

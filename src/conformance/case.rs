//! Cases as data.

use std::fmt;

use futures_util::future::BoxFuture;

use super::failure::Checked;
use super::world::World;

/// What a case is about; the first part of its name in test output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Area {
    /// What is published arrives, as it was.
    Delivery,
    /// In which order.
    Order,
    /// Acknowledging, retrying, rejecting, and what comes back.
    Settlement,
    /// Where groups and readers begin, and moving them.
    Positions,
    /// Messages for later.
    Delays,
    /// Subscribing, cancelling, closing.
    Lifecycle,
    /// Bad input, foreign producers, secrets.
    Hostile,
    /// Contexts, in every form and by any propagator.
    Propagation,
    /// What spans say.
    Telemetry,
    /// The ways a trace breaks at a queue, on exported spans; see [`breaks`](super::breaks()).
    Trace,
    /// The consumer runtime over the adapter.
    Runtime,
    /// Much at a time.
    Stress,
    /// The broker is killed.
    Restart,
}

impl Area {
    /// The name in test output.
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
        }
    }
}

/// What a broker must be able to do for a case; without it, the case requires that the broker says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Need {
    /// [`Capabilities::at_least_once`](crate::Capabilities).
    AtLeastOnce,
    /// [`Capabilities::groups`](crate::Capabilities).
    Groups,
    /// [`Capabilities::backlog`](crate::Capabilities).
    Backlog,
    /// [`Capabilities::tombstones`](crate::Capabilities).
    Tombstones,
    /// [`Capabilities::delayed_publish`](crate::Capabilities).
    DelayedPublish,
    /// [`Capabilities::start_at_time`](crate::Capabilities).
    StartAtTime,
    /// [`Capabilities::start_at_offset`](crate::Capabilities).
    StartAtOffset,
    /// [`Capabilities::reposition`](crate::Capabilities).
    Reposition,
    /// [`Confirm::Broker`](crate::capability::Confirm): what is confirmed outlives the broker's process.
    Durable,
}

/// One requirement on every broker, with the code that checks it.
#[derive(Clone, Copy)]
pub struct Case {
    pub(super) area: Area,
    pub(super) name: &'static str,
    pub(super) needs: &'static [Need],
    pub(super) requires: &'static str,
    pub(super) check: for<'a> fn(&'a World) -> BoxFuture<'a, Checked>,
}

impl Case {
    /// What it is about.
    pub fn area(&self) -> Area {
        self.area
    }

    /// Its name, unique within the area: a sentence about the broker in `snake_case`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What the broker must be able to do for it.
    pub fn needs(&self) -> &'static [Need] {
        self.needs
    }

    /// What it requires, in a line.
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

/// The table of a file's cases: `cases! { Area: name [needs] "what it requires"; … }`.
macro_rules! cases {
    ($area:ident: $($name:ident [$($need:ident),*] $requires:literal;)*) => {
        pub(in crate::conformance) const CASES: &[$crate::conformance::Case] = &[$(
            $crate::conformance::Case {
                area: $crate::conformance::Area::$area,
                name: stringify!($name),
                needs: &[$($crate::conformance::Need::$need),*],
                requires: $requires,
                check: |world| Box::pin($name(world)),
            },
        )*];
    };
}
pub(super) use cases;

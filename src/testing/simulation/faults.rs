//! The faults that a simulated network draws.

use std::cell::Cell;
use std::time::Duration;

/// The faults of a simulated network: how slow it is, and how often it breaks. All times are
/// virtual, and drawn anew by each seed, up to the values here.
///
/// ```
/// use std::time::Duration;
/// use traced_broker::testing::simulation::Faults;
///
/// let calm = Faults::none();
/// let stormy = Faults::default().lose_connections_every(Duration::from_secs(2));
/// assert_ne!(calm, stormy);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    pub(super) latency: Duration,
    pub(super) between_losses: Option<Duration>,
    pub(super) outage: Duration,
    pub(super) notice: Duration,
    pub(super) refused_in_a_thousand: u32,
}

impl Faults {
    /// A network that delivers everything at once and never breaks.
    pub const fn none() -> Self {
        Self {
            latency: Duration::ZERO,
            between_losses: None,
            outage: Duration::ZERO,
            notice: Duration::ZERO,
            refused_in_a_thousand: 0,
        }
    }

    /// Sets the maximum time of a message or an answer on the way, in each direction. Default
    /// 20 ms.
    #[must_use]
    pub const fn latency(mut self, most: Duration) -> Self {
        self.latency = most;
        self
    }

    /// Sets the mean time between two losses of a connection. Default 5 s. [`none`](Self::none)
    /// loses none.
    #[must_use]
    pub const fn lose_connections_every(mut self, mean: Duration) -> Self {
        self.between_losses = Some(mean);
        self
    }

    /// Sets the maximum time that a lost connection is away. Default 1 s.
    #[must_use]
    pub const fn outage(mut self, most: Duration) -> Self {
        self.outage = most;
        self
    }

    /// Sets the maximum time after which the client notices that its connection is lost. Until then
    /// it sends, and gets no answer. Default 500 ms.
    #[must_use]
    pub const fn notice(mut self, most: Duration) -> Self {
        self.notice = most;
        self
    }

    /// Sets the number of publishes in a thousand that the broker refuses with
    /// [`Busy`](crate::ErrorKind::Busy), certainly not sent. Default 20.
    #[must_use]
    pub const fn refuse(mut self, in_a_thousand: u32) -> Self {
        self.refused_in_a_thousand = in_a_thousand;
        self
    }

    /// Draws if a publish is refused.
    pub(super) fn refuses(&self) -> bool {
        fastrand::u32(0..1_000) < self.refused_in_a_thousand
    }

    /// Draws the time until the next loss; `None` if there is none.
    pub(super) fn next_loss(&self) -> Option<Duration> {
        self.between_losses.map(|mean| up_to(2 * mean).max(Duration::from_millis(1)))
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(20),
            between_losses: Some(Duration::from_secs(5)),
            outage: Duration::from_secs(1),
            notice: Duration::from_millis(500),
            refused_in_a_thousand: 20,
        }
    }
}

thread_local! {
    /// The step between drawn times of the world of this thread, in milliseconds.
    static STEP: Cell<u64> = const { Cell::new(1) };
}

/// Draws the step between the times of a world: in some, much happens at the same time.
pub(super) fn draw_step() {
    STEP.set([1, 1, 5, 10][fastrand::usize(0..4)]);
}

/// Draws a time from none to `most`, in steps of whole milliseconds, the resolution of tokio's
/// timers.
pub(super) fn up_to(most: Duration) -> Duration {
    let (most, step) = (u64::try_from(most.as_millis()).unwrap_or(u64::MAX), STEP.get());
    Duration::from_millis(fastrand::u64(0..=most / step) * step)
}

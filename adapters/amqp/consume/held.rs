//! Messages that are held while the lost trials of suspects among them are looked up.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::trials::{LookUp, Suspect};
use crate::driver::{DeliveryHandle, Inbound};

/// The messages of a subscription that are held, in order. Those behind a suspect wait with it, so
/// that they keep their order, and suspects among them are looked up at once.
#[derive(Default)]
pub(crate) struct Held(Mutex<VecDeque<Arrival>>);

/// A message that is ready to be handed out.
pub(crate) struct Arrival {
    pub(crate) inbound: Inbound,
    pub(crate) suspect: Option<Arc<Suspect>>,
}

impl Held {
    /// Holds the messages, and begins to look up the suspects among them.
    pub(crate) fn hold(&self, arrivals: VecDeque<Arrival>) -> Option<LookUp> {
        let suspects = || arrivals.iter().filter_map(|arrival| arrival.suspect.as_ref());
        let log = suspects().next().map(|suspect| suspect.log());
        let looking = log.map(|log| log.look_up(suspects().map(|suspect| suspect.identity()).collect()));
        *self.0.lock() = arrivals;
        looking
    }

    /// Notes the lost trials of the suspects, in order. Without an answer, none of them is one: a
    /// trial that cannot be counted is not noted.
    pub(crate) fn answer(&self, lost: Option<Vec<u32>>) {
        let mut arrivals = self.0.lock();
        let suspects =
            arrivals.iter_mut().filter_map(|arrival| Some((arrival.suspect.as_ref()?, &mut arrival.inbound)));
        for ((suspect, inbound), lost) in suspects.zip(lost.into_iter().flatten()) {
            suspect.has_lost(lost);
            inbound.lost_trials = Some(lost);
        }
    }

    /// Returns the next message that can still be settled.
    pub(crate) fn next(&self) -> Option<Inbound> {
        let mut arrivals = self.0.lock();
        loop {
            let Arrival { inbound, suspect: _ } = arrivals.pop_front()?;
            if !inbound.tenure.is_over() {
                return Some(inbound);
            }
        }
    }

    /// Takes the messages out, to be given back.
    pub(crate) fn take(&self) -> Vec<Box<dyn DeliveryHandle>> {
        self.0.lock().drain(..).map(|arrival| arrival.inbound.handle).collect()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.0.lock().len()).finish()
    }
}

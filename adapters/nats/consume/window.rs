//! The use of a subscription's prefetch: requested messages, and unsettled deliveries.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use tokio::time::Instant;

use crate::driver::Tenure;

use super::unreadable::Quarantined;

/// Number of deliveries that are requested one by one after a message that the client could not
/// read. The next such message then affects no others.
const CAREFUL: usize = 1024;

/// The account of one session. Requested and unsettled messages together never exceed the limit.
#[derive(Debug)]
pub(crate) struct Window {
    limit: usize,
    requested: usize,
    careful: usize,
    slots: Vec<Option<Unsettled>>,
    free: Vec<usize>,
    /// The number of unsettled deliveries that were set aside; the limit does not count them.
    aside: usize,
    round: u64,
    /// The tenure of the deliveries of this round: they are renewed together, and lost together.
    tenure: Tenure,
}

/// An unsettled delivery.
#[derive(Debug)]
pub(crate) struct Unsettled {
    /// The subject on which it is acknowledged.
    pub(crate) reply: Subject,
    /// The sequence of the message in its stream.
    pub(crate) sequence: u64,
    /// The message itself, if the server cannot redeliver it.
    pub(crate) quarantined: Option<Arc<Quarantined>>,
    pub(crate) tenure: Tenure,
    since: u64,
    is_aside: bool,
    /// The time at which the server's wait began, or began again.
    extended: Instant,
}

impl Unsettled {
    /// Returns `true` if the delivery is lost: the server has waited for `ack_wait`, and redelivers
    /// the message.
    pub(crate) fn is_over(&self, ack_wait: Duration) -> bool {
        if self.extended.elapsed() > ack_wait {
            self.tenure.end();
        }
        self.tenure.is_over()
    }

    /// Returns the end of the time in which the delivery is certainly this member's, also if the
    /// server began to wait a little earlier than it seems here.
    pub(crate) fn certain_until(&self, ack_wait: Duration) -> Instant {
        self.extended + ack_wait.mul_f64(0.75)
    }
}

impl Window {
    pub(crate) fn new(limit: usize) -> Self {
        let (slots, free) = (Vec::new(), Vec::new());
        Self { limit, requested: 0, careful: 0, slots, free, aside: 0, round: 0, tenure: Tenure::new() }
    }

    /// Requests messages one by one for a while.
    pub(crate) fn be_careful(&mut self) {
        self.careful = CAREFUL;
    }

    /// Returns the number of messages to request now: enough to be worth a request, or all that
    /// there is room for if `idle` is set and no request is open, because no other event would
    /// bring the next message.
    pub(crate) fn take_request(&mut self, idle: bool) -> Option<usize> {
        let room = self.limit.saturating_sub(self.requested + self.unsettled() - self.aside);
        let worthwhile = if self.careful > 0 {
            if self.requested > 0 { 0 } else { room.min(1) }
        } else if room >= (self.limit / 4).max(1) || (idle && self.requested == 0) {
            room
        } else {
            0
        };
        self.requested += worthwhile;
        (worthwhile > 0).then_some(worthwhile)
    }

    /// Returns the number of messages that are requested and have not arrived.
    pub(crate) fn requested(&self) -> usize {
        self.requested
    }

    /// Counts the arrival of a requested message.
    pub(crate) fn arrived(&mut self) {
        self.requested = self.requested.saturating_sub(1);
        self.careful = self.careful.saturating_sub(1);
    }

    /// Counts requested messages that will not arrive, because the request has run out.
    pub(crate) fn expired(&mut self, messages: usize) {
        self.requested = self.requested.saturating_sub(messages);
    }

    /// Enters a delivery and returns its slot.
    pub(crate) fn open(&mut self, reply: Subject, sequence: u64, quarantined: Option<Arc<Quarantined>>) -> usize {
        let (since, tenure, extended) = (self.round, self.tenure.clone(), Instant::now());
        let unsettled = Some(Unsettled { reply, sequence, quarantined, tenure, since, is_aside: false, extended });
        match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.slots.get_mut(slot) {
                    *place = unsettled;
                }
                slot
            }
            None => {
                self.slots.push(unsettled);
                self.slots.len() - 1
            }
        }
    }

    pub(crate) fn get(&self, slot: usize) -> Option<&Unsettled> {
        self.slots.get(slot)?.as_ref()
    }

    /// Enters the next attempt at a delivery. Returns `false` if it is no longer unsettled.
    pub(crate) fn renew(&mut self, slot: usize, message: &Arc<Quarantined>) -> bool {
        let out = self.slots.get_mut(slot).and_then(Option::as_mut);
        out.map(|out| out.quarantined = Some(Arc::clone(message))).is_some()
    }

    /// Takes a delivery out, which makes room for another.
    pub(crate) fn close(&mut self, slot: usize) -> Option<Unsettled> {
        let unsettled = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        self.aside -= usize::from(unsettled.is_aside);
        Some(unsettled)
    }

    /// Makes room for another delivery, while this one stays unsettled. Returns `false` if it is
    /// settled.
    pub(crate) fn set_aside(&mut self, slot: usize) -> bool {
        let Some(out) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return false };
        self.aside += usize::from(!std::mem::replace(&mut out.is_aside, true));
        true
    }

    /// Takes out all deliveries.
    pub(crate) fn close_all(&mut self) -> Vec<Unsettled> {
        self.end();
        self.free.clear();
        self.aside = 0;
        std::mem::take(&mut self.slots).into_iter().flatten().collect()
    }

    /// Starts the next round: finds the deliveries that are lost, and extends those that were
    /// unsettled for a whole round, because their deadline at the server has come nearer. `extend`
    /// returns `false` if it could not. Returns the number of deliveries found lost.
    pub(crate) fn next_round(&mut self, ack_wait: Duration, mut extend: impl FnMut(&Subject) -> bool) -> usize {
        let round = self.round;
        self.round += 1;
        self.tenure = Tenure::new();
        let mut lost = 0;
        for out in self.slots.iter_mut().flatten().filter(|out| out.since < round && !out.tenure.is_over()) {
            if out.is_over(ack_wait) {
                lost += 1;
            } else if extend(&out.reply) {
                out.extended = Instant::now();
            }
        }
        lost
    }

    /// Ends the tenure of all deliveries.
    pub(crate) fn end(&self) {
        self.slots.iter().flatten().for_each(|out| out.tenure.end());
        self.tenure.end();
    }

    /// Returns the tenure of the deliveries that arrive now.
    pub(crate) fn tenure(&self) -> Tenure {
        self.tenure.clone()
    }

    /// Returns the unsettled deliveries.
    pub(crate) fn out(&self) -> impl Iterator<Item = &Unsettled> {
        self.slots.iter().flatten()
    }

    /// Takes another delivery of a message for the one that is out, whose handle stays good.
    /// Returns `false` if none is out.
    pub(crate) fn came_again(&mut self, sequence: u64, reply: &Subject) -> bool {
        let is_out = |out: &&mut Unsettled| out.sequence == sequence && !out.tenure.is_over();
        let out = self.slots.iter_mut().flatten().find(is_out);
        out.map(|out| (out.reply, out.extended) = (reply.clone(), Instant::now())).is_some()
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(window: &mut Window) -> usize {
        window.arrived();
        window.open(Subject::from_static("reply"), 1, None)
    }

    #[test]
    fn asks_for_the_limit_and_then_in_quarters() {
        let mut window = Window::new(8);
        assert_eq!(window.take_request(false), Some(8));
        assert_eq!(window.take_request(true), None);
        let slots: Vec<_> = (0..8).map(|_| open(&mut window)).collect();
        assert!(window.requested() == 0);
        assert_eq!(window.take_request(true), None, "full");
        assert!(window.close(slots[0]).is_some());
        assert!(window.close(slots[0]).is_none(), "settled once");
        assert_eq!(window.take_request(false), None, "one is not worth a request");
        assert_eq!(window.take_request(true), Some(1), "but for one who waits");
        assert!(window.close(slots[1]).is_some() && window.close(slots[2]).is_some());
        assert_eq!(window.take_request(false), Some(2));
        assert_eq!(window.unsettled(), 5);
    }

    #[test]
    fn what_is_set_aside_makes_room_once() {
        let mut window = Window::new(4);
        assert_eq!(window.take_request(false), Some(4));
        let slots: Vec<_> = (0..4).map(|_| open(&mut window)).collect();
        assert!(window.set_aside(slots[0]) && window.set_aside(slots[0]) && window.set_aside(slots[1]));
        assert_eq!((window.take_request(false), window.unsettled()), (Some(2), 4));
        assert!(window.close(slots[0]).is_some() && !window.set_aside(slots[0]));
        assert_eq!(window.take_request(true), None, "its place was taken already");
        window.expired(2);
        assert_eq!((window.close_all().len(), window.take_request(true)), (3, Some(4)));
    }

    #[test]
    fn a_limit_of_one_works() {
        let mut window = Window::new(1);
        assert_eq!(window.take_request(false), Some(1));
        let slot = open(&mut window);
        assert_eq!(window.take_request(true), None);
        window.close(slot);
        assert_eq!(window.take_request(false), Some(1));
    }

    #[test]
    fn a_request_that_runs_out_makes_room() {
        let mut window = Window::new(4);
        assert_eq!(window.take_request(false), Some(4));
        open(&mut window);
        window.expired(3);
        assert!(window.requested() == 0);
        assert_eq!(window.take_request(false), Some(3));
    }

    #[test]
    fn careful_is_one_by_one_for_a_while() {
        let mut window = Window::new(100);
        window.be_careful();
        for _ in 0..CAREFUL {
            assert_eq!(window.take_request(false), Some(1));
            assert_eq!(window.take_request(true), None);
            let slot = open(&mut window);
            window.close(slot);
        }
        assert_eq!(window.take_request(false), Some(100));
    }

    const LONG: Duration = Duration::from_secs(60);

    fn extended(window: &mut Window) -> usize {
        let mut extended = 0;
        let lost = window.next_round(LONG, |_| {
            extended += 1;
            true
        });
        assert_eq!(lost, 0);
        extended
    }

    #[test]
    fn only_what_was_out_for_a_round_is_renewed() {
        let mut window = Window::new(4);
        open(&mut window);
        assert_eq!(extended(&mut window), 0);
        let second = open(&mut window);
        assert_eq!(extended(&mut window), 1);
        window.close(second);
        assert_eq!(extended(&mut window), 1);
        assert_eq!(window.close_all().len(), 1);
        assert_eq!(window.unsettled(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_renewed_in_time_is_lost_and_later_deliveries_are_not() {
        let mut window = Window::new(4);
        let (early, tenure) = (open(&mut window), window.tenure());
        assert_eq!(window.next_round(LONG, |_| false), 0);
        tokio::time::advance(LONG / 2).await;
        let (late, later) = (open(&mut window), window.tenure());
        assert_eq!(window.next_round(LONG, |_| false), 0, "the connection is down, but there is time");
        tokio::time::advance(LONG / 2 + Duration::from_millis(1)).await;
        assert!(window.get(early).unwrap().is_over(LONG) && tenure.is_over());
        assert!(!window.get(late).unwrap().is_over(LONG) && !later.is_over());
        assert_eq!(window.next_round(LONG, |_| true), 0, "counted once: at the look above");
        window.end();
        assert!(later.is_over());
    }
}

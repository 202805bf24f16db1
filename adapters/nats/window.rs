//! How much of its prefetch a subscription has used: what is asked for, and what is out and unsettled.

use std::sync::Arc;

use async_nats::Subject;

use super::quarantine::Quarantined;

/// After a message that the client could not read, so many deliveries are asked for one by one: the next such message then
/// takes no others with it.
const CAREFUL: usize = 1024;

/// The account of one session. What is asked for and what is unsettled together never exceed the limit.
#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    requested: usize,
    careful: usize,
    slots: Vec<Option<Unsettled>>,
    free: Vec<usize>,
    round: u64,
}

/// A delivery that is out.
#[derive(Debug)]
pub(super) struct Unsettled {
    /// Where it is acknowledged.
    pub(super) reply: Subject,
    /// The message itself where the server cannot hand it out again.
    pub(super) quarantined: Option<Arc<Quarantined>>,
    since: u64,
}

impl Window {
    pub(super) fn new(limit: usize, careful: bool) -> Self {
        let careful = if careful { CAREFUL } else { 0 };
        Self { limit, requested: 0, careful, slots: Vec::new(), free: Vec::new(), round: 0 }
    }

    /// How many messages to ask for now: enough to be worth a request, or whatever there is room for when `idle`, that is, when
    /// nothing else could bring the next message.
    pub(super) fn take_request(&mut self, idle: bool) -> Option<usize> {
        let room = self.limit.saturating_sub(self.requested + self.unsettled());
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

    /// How many messages have been asked for and did not come yet.
    pub(super) fn requested(&self) -> usize {
        self.requested
    }

    /// One that was asked for has come.
    pub(super) fn arrived(&mut self) {
        self.requested = self.requested.saturating_sub(1);
        self.careful = self.careful.saturating_sub(1);
    }

    /// So many of those asked for will not come: the request has run out.
    pub(super) fn expired(&mut self, messages: usize) {
        self.requested = self.requested.saturating_sub(messages);
    }

    /// Enters a delivery and returns its place.
    pub(super) fn open(&mut self, reply: Subject, quarantined: Option<Arc<Quarantined>>) -> usize {
        let unsettled = Some(Unsettled { reply, quarantined, since: self.round });
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

    pub(super) fn get(&self, slot: usize) -> Option<&Unsettled> {
        self.slots.get(slot)?.as_ref()
    }

    /// Enters the next attempt at a delivery that is still out.
    pub(super) fn renew(&mut self, slot: usize, message: &Arc<Quarantined>) -> bool {
        let out = self.slots.get_mut(slot).and_then(Option::as_mut);
        out.map(|out| out.quarantined = Some(Arc::clone(message))).is_some()
    }

    /// Takes a delivery out, which makes room for another.
    pub(super) fn close(&mut self, slot: usize) -> Option<Unsettled> {
        let unsettled = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(unsettled)
    }

    /// Takes out all deliveries.
    pub(super) fn close_all(&mut self) -> Vec<Unsettled> {
        self.free.clear();
        std::mem::take(&mut self.slots).into_iter().flatten().collect()
    }

    /// The deliveries that have been out for a whole round, in which time their deadline at the server has come nearer.
    pub(super) fn next_round(&mut self) -> Vec<Subject> {
        let round = self.round;
        self.round += 1;
        self.slots.iter().flatten().filter(|out| out.since < round).map(|out| out.reply.clone()).collect()
    }

    /// Where everything that is out is acknowledged.
    pub(super) fn replies(&self) -> Vec<Subject> {
        self.slots.iter().flatten().map(|out| out.reply.clone()).collect()
    }

    pub(super) fn unsettled(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(window: &mut Window) -> usize {
        window.arrived();
        window.open(Subject::from_static("reply"), None)
    }

    #[test]
    fn asks_for_the_limit_and_then_in_quarters() {
        let mut window = Window::new(8, false);
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
    fn a_limit_of_one_works() {
        let mut window = Window::new(1, false);
        assert_eq!(window.take_request(false), Some(1));
        let slot = open(&mut window);
        assert_eq!(window.take_request(true), None);
        window.close(slot);
        assert_eq!(window.take_request(false), Some(1));
    }

    #[test]
    fn a_request_that_runs_out_makes_room() {
        let mut window = Window::new(4, false);
        assert_eq!(window.take_request(false), Some(4));
        open(&mut window);
        window.expired(3);
        assert!(window.requested() == 0);
        assert_eq!(window.take_request(false), Some(3));
    }

    #[test]
    fn careful_is_one_by_one_for_a_while() {
        let mut window = Window::new(100, true);
        for _ in 0..CAREFUL {
            assert_eq!(window.take_request(false), Some(1));
            assert_eq!(window.take_request(true), None);
            let slot = open(&mut window);
            window.close(slot);
        }
        assert_eq!(window.take_request(false), Some(100));
    }

    #[test]
    fn only_what_was_out_for_a_round_is_renewed() {
        let mut window = Window::new(4, false);
        open(&mut window);
        assert_eq!(window.next_round().len(), 0);
        let second = open(&mut window);
        assert_eq!(window.next_round().len(), 1);
        window.close(second);
        assert_eq!(window.next_round().len(), 1);
        assert_eq!(window.close_all().len(), 1);
        assert_eq!(window.unsettled(), 0);
    }
}

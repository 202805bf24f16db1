//! One partition during one of its assignments: its messages, and the deliveries in hand.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::notes::Notes;
use super::offsets::{Mark, Offsets, Past};
use super::window::Window;
use crate::driver::{Confirmation, Tenure};
use crate::error::{Error, ErrorKind};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Maximum number of settled messages of a partition that a crash may bring back because they fit
/// in no metadata, in windows, and the least of this bound. Beyond it, no more are taken until
/// older ones are settled.
const AHEAD: u64 = 4;
const LEAST_AHEAD: u64 = 16_384;

/// One partition during one of its assignments.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) number: i32,
    /// Ends when the partition is revoked.
    pub(crate) tenure: Tenure,
    state: Mutex<State>,
    /// `true` while too much is settled beyond what a commit can tell.
    is_ahead: AtomicBool,
    /// `true` until a commit is asked for that tells of this assignment, if trials are noted in it.
    is_untold: AtomicBool,
    window: Arc<Window>,
    notes: Arc<Notes>,
}

#[derive(Debug)]
struct State {
    offsets: Offsets,
    /// The position that [`Partition::moved`] returned last.
    told: Option<Mark>,
    /// The number of deliveries that were handed out and are neither settled nor dropped.
    in_hand: usize,
    /// The number of unsettled messages that take up no place of the window.
    aside: usize,
    /// `true` once no more deliveries are handed out.
    gives_up: bool,
    /// `true` once a message was settled.
    settles: bool,
}

impl Partition {
    /// Starts an assignment of the partition, which continues with `offsets`.
    pub(crate) fn new(number: i32, offsets: Offsets, window: &Arc<Window>, notes: &Arc<Notes>) -> Self {
        Self {
            number,
            is_untold: AtomicBool::new(offsets.notes_trials()),
            tenure: Tenure::new(),
            state: Mutex::new(State { offsets, told: None, in_hand: 0, aside: 0, gives_up: false, settles: false }),
            is_ahead: AtomicBool::new(false),
            window: Arc::clone(window),
            notes: Arc::clone(notes),
        }
    }

    /// Takes the message at `offset`, to be settled. Returns `None` if it was settled before.
    pub(crate) fn take(&self, offset: i64) -> Option<Past> {
        let past = self.state.lock().offsets.take(offset)?;
        self.window.occupy();
        Some(past)
    }

    /// Takes the message at `offset` as settled. It occupies the window until [`Window::release`]
    /// is called when it is handed out. Returns `false` if it was settled before.
    pub(crate) fn pass(&self, offset: i64) -> bool {
        let is_new = self.state.lock().offsets.pass(offset);
        if is_new {
            self.window.occupy();
        }
        is_new
    }

    /// Counts a delivery that is handed out. Returns `false` if it may not be, because the
    /// partition is given up or was revoked.
    pub(crate) fn hand_out(&self) -> bool {
        let mut state = self.state.lock();
        let may = !state.gives_up && !self.is_ended();
        state.in_hand += usize::from(may);
        may
    }

    /// Counts a delivery that is in hand no more.
    pub(crate) fn hand_back(&self) {
        let mut state = self.state.lock();
        state.in_hand -= 1;
        if state.in_hand == 0 {
            self.window.wake();
        }
    }

    /// Returns the number of deliveries in hand.
    pub(crate) fn in_hand(&self) -> usize {
        self.state.lock().in_hand
    }

    /// Hands out no more deliveries, before the partition is revoked.
    pub(crate) fn give_up(&self) {
        self.state.lock().gives_up = true;
        self.tenure.wind_down();
    }

    /// Frees the place of an unsettled message in the window. Returns `false` if the partition is
    /// no longer assigned.
    pub(crate) fn set_aside(&self) -> bool {
        let mut state = self.state.lock();
        let may = !self.is_ended();
        if may {
            state.aside += 1;
            self.window.release();
        }
        may
    }

    /// Settles the message at `offset`, which may have been set aside. Returns `false` if the
    /// partition is no longer assigned.
    pub(crate) fn settle(&self, offset: i64, is_aside: bool) -> bool {
        let mut state = self.state.lock();
        if self.is_ended() {
            return false;
        }
        state.settles = true;
        if state.offsets.end_trial(offset) {
            self.hurry();
        }
        match (state.offsets.settle(offset), is_aside) {
            (true, true) => state.aside -= 1,
            (true, false) => self.window.release(),
            (false, _) => {}
        }
        true
    }

    /// Notes that the message at `offset` failed for the number of times.
    pub(crate) fn fail(&self, offset: i64, attempts: u32) {
        self.state.lock().offsets.fail(offset, attempts);
    }

    /// Notes that a handler begins on the suspect at `offset`. Confirmed once it is committed.
    pub(crate) fn begin_trial(&self, offset: i64) -> Confirmation<()> {
        let mut state = self.state.lock();
        if self.is_ended() || state.gives_up {
            let message = "the partition is no longer assigned to this consumer, or about to be revoked";
            return Confirmation::ready(Err(Error::new(ErrorKind::SettlementLost, message)));
        }
        state.offsets.begin_trial(offset);
        drop(state);
        let committed = self.notes.await_commit();
        self.window.wake();
        committed
    }

    /// Withdraws the note of a trial, if there is one.
    pub(crate) fn end_trial(&self, offset: i64) {
        if self.state.lock().offsets.end_trial(offset) {
            self.hurry();
        }
    }

    /// Asks for a commit now: a process that ends soon for another reason would leave a note that
    /// is withdrawn.
    fn hurry(&self) {
        self.notes.hurry();
        self.window.wake();
    }

    /// Returns `true` if it is not told yet that this assignment is open.
    pub(crate) fn is_untold(&self) -> bool {
        self.is_untold.load(Ordering::Relaxed)
    }

    /// Notes that the next commit tells how far this assignment has taken messages. After one that
    /// was left open, each batch is told.
    pub(crate) fn tell(&self) {
        let is_suspicious = self.state.lock().offsets.are_suspicious();
        self.is_untold.store(is_suspicious, Ordering::Relaxed);
    }

    /// Returns `true` if the partition was revoked, or its subscription ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.tenure.is_over()
    }

    /// Returns `true` if the partition is given up or was revoked.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_ended() || self.state.lock().gives_up
    }

    /// Returns `true` if messages may be taken.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.is_ahead() && !self.is_given_up()
    }

    /// Returns `true` if messages were settled in this assignment.
    pub(crate) fn settles(&self) -> bool {
        self.state.lock().settles
    }

    /// Returns the number of places of the window that its messages hold.
    pub(crate) fn held(&self) -> usize {
        let state = self.state.lock();
        state.offsets.unsettled() - state.aside
    }

    /// Returns `true` if taking messages has to wait until older messages are settled.
    pub(crate) fn is_ahead(&self) -> bool {
        self.is_ahead.load(Ordering::Relaxed)
    }

    /// Returns the position to commit, if a message was taken.
    pub(crate) fn mark(&self, limit: usize) -> Option<Mark> {
        Some(self.state.lock().offsets.mark(limit)?.0)
    }

    /// Returns the offset of the message to take next.
    pub(crate) fn next(&self) -> i64 {
        self.state.lock().offsets.next()
    }

    /// Returns `true` if messages are settled beyond the position that was told last.
    pub(crate) fn is_behind(&self) -> bool {
        let state = self.state.lock();
        let told = state.told.as_ref().map_or(state.offsets.begin(), |mark| mark.position);
        state.offsets.position() > told
    }

    /// Returns the position, if messages were settled that moved it.
    pub(crate) fn settled_to(&self) -> Option<i64> {
        let state = self.state.lock();
        let position = state.offsets.position();
        (position > state.offsets.begin()).then_some(position)
    }

    /// Returns the offsets of trials of this process that are noted.
    pub(crate) fn tried(&self) -> BTreeSet<i64> {
        self.state.lock().offsets.tried()
    }

    /// Returns `true` if [`moved`](Self::moved) returned this position last.
    pub(crate) fn has_told(&self, mark: &Mark) -> bool {
        self.state.lock().told.as_ref() == Some(mark)
    }

    /// Lets [`moved`](Self::moved) return the position again.
    pub(crate) fn repeat(&self) {
        self.state.lock().told = None;
    }

    /// Returns `true` if a message at or after `offset` was taken.
    pub(crate) fn is_past(&self, offset: i64) -> bool {
        self.state.lock().offsets.is_past(offset)
    }

    /// Returns the position, if it or the progress beyond it has moved since the last call.
    pub(crate) fn moved(&self, limit: usize) -> Option<Mark> {
        let mut state = self.state.lock();
        let (mark, _) = state.offsets.mark(limit)?;
        if state.told.as_ref() == Some(&mark) {
            return None;
        }
        state.told = Some(mark.clone());
        Some(mark)
    }

    /// Finds out if too much is settled beyond what a commit can tell.
    pub(crate) fn survey(&self, limit: usize) {
        let left_out = self.state.lock().offsets.mark(limit).map_or(0, |(_, left_out)| left_out);
        // Resumed at half, so that taking does not stop and go for every message.
        let most = (AHEAD * self.window.limit() as u64).max(LEAST_AHEAD);
        let bound = most / if self.is_ahead() { 2 } else { 1 };
        self.is_ahead.store(left_out > bound, Ordering::Relaxed);
    }

    /// Ends the assignment. Returns the position to commit, if there is one.
    pub(crate) fn end(&self, limit: usize) -> Option<Mark> {
        let mut state = self.state.lock();
        state.offsets.end();
        let mark = state.offsets.mark(limit);
        // Set under the lock, so that concurrent settlement happens either before or after.
        self.tenure.end();
        let in_window = state.offsets.clear() - std::mem::take(&mut state.aside);
        (0..in_window).for_each(|_| self.window.release());
        Some(mark?.0)
    }
}

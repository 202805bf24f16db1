//! The known ways in which a trace breaks at a queue, and the component that prevents each.

use std::fmt;

/// A way in which a trace breaks at a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Break {
    number: u8,
    words: &'static str,
    responsible: Responsible,
}

/// The component that prevents a break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Responsible {
    /// This library. The [cases](super::cases()) whose names begin with the number check every
    /// adapter.
    Kit,
    /// A component that no adapter is part of; the text names it.
    Elsewhere(&'static str),
}

impl Break {
    /// Returns the number.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Returns a short description of the break.
    pub fn words(&self) -> &'static str {
        self.words
    }

    /// Returns the component that prevents the break.
    pub fn responsible(&self) -> Responsible {
        self.responsible
    }

    /// Returns `true` if a case of this name checks the break.
    pub fn is_checked_by(&self, case: &str) -> bool {
        let number = case.strip_prefix('b').and_then(|rest| rest.split_once('_'));
        number.is_some_and(|(digits, _)| digits.parse() == Ok(self.number))
    }
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "B{:02}", self.number)
    }
}

/// Returns all breaks, ordered by number.
pub fn breaks() -> &'static [Break] {
    BREAKS
}

const fn kept(number: u8, words: &'static str) -> Break {
    Break { number, words, responsible: Responsible::Kit }
}

const fn elsewhere(number: u8, words: &'static str, who: &'static str) -> Break {
    Break { number, words, responsible: Responsible::Elsewhere(who) }
}

const BREAKS: &[Break] = &[
    kept(1, "parent or link that no exported span has"),
    kept(2, "handler's work outside the process span"),
    kept(3, "process span ended before the handler"),
    kept(4, "batch takes one message's context for all"),
    kept(5, "batch consumer splits or loses traces"),
    kept(6, "links beyond 128 dropped"),
    kept(7, "retry starts a new trace"),
    kept(8, "traceparent accumulates"),
    kept(9, "dead letter loses the trace"),
    kept(10, "delayed message becomes a late child"),
    kept(11, "unsampled context dropped"),
    kept(12, "sampled flag forced"),
    kept(13, "tracestate or baggage lost"),
    kept(14, "user's propagator ignored"),
    kept(15, "nothing carried without an SDK"),
    kept(16, "ambient context taken for the message's"),
    kept(17, "context leaks between messages"),
    kept(18, "messages share the receiving loop's trace"),
    kept(19, "context of another span than the send"),
    kept(20, "forwarded message's context taken for the caller's"),
    kept(21, "headers rewritten before the handler"),
    kept(22, "garbage header loses the message"),
    kept(23, "header not found in another case"),
    kept(24, "header renamed by the server"),
    kept(25, "doubled header read at random"),
    kept(26, "header of a type others cannot read"),
    kept(27, "foreign dialect not recognised"),
    kept(28, "error or panic not on the span"),
    kept(29, "span of a cancelled handler never ends"),
    kept(30, "failed publish not visible"),
    kept(31, "redelivery loses or doubles a span"),
    kept(32, "replay becomes a child of the old trace"),
    kept(33, "what a handler publishes loses the hop"),
    kept(34, "bridge starts the trace anew"),
    kept(35, "outsider forces sampling or brings baggage"),
    kept(36, "hostile baggage breaks the next hop"),
    kept(37, "context lost over a reconnection or drain"),
    kept(38, "job without, or glued to, its enqueuer"),
    elsewhere(39, "overloaded exporter looks like a break", "the exporter's: no adapter has a part in it"),
    kept(40, "time in the queue invisible or negative"),
    elsewhere(41, "collector tiers split a trace", "the collector's: no adapter has a part in it"),
    elsewhere(42, "late span misses the sampling decision", "the collector's: no adapter has a part in it"),
];

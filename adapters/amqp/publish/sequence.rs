//! The order in which messages were sent on a channel.
//!
//! The broker ends a channel on a message that it refuses, and ignores everything behind it. It
//! tells the exchange of that message, or its size, but not which message it was. The last one that
//! was sent to this exchange is the latest that it can be. What was sent later was not taken.

use std::collections::HashMap;

use lapin::ErrorKind as ClientErrorKind;
use lapin::types::ShortString;

/// The numbers of the messages that were sent on one channel, from 1.
#[derive(Debug)]
pub(crate) struct Sequence {
    count: u64,
    exchanges: HashMap<ShortString, Span>,
    /// The last message of each size, by the number of bits of the size.
    sizes: [u64; usize::BITS as usize + 1],
}

/// The first and the last message to one exchange.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: u64,
    last: u64,
}

/// The knowledge of a message on a channel that the broker ended because of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// It is the refused message.
    Refused,
    /// It was sent after the refused message, and was not taken.
    Behind,
    /// It may have been taken.
    Unknown,
}

impl Sequence {
    pub(crate) fn new() -> Self {
        Self { count: 0, exchanges: HashMap::new(), sizes: [0; usize::BITS as usize + 1] }
    }

    /// Returns the number of the next message.
    pub(crate) fn next(&mut self, exchange: &ShortString, size: usize) -> u64 {
        self.count += 1;
        let number = self.count;
        match self.exchanges.get_mut(exchange) {
            Some(span) => span.last = number,
            None => drop(self.exchanges.insert(exchange.clone(), Span { first: number, last: number })),
        }
        self.sizes[bits(size)] = number;
        number
    }

    /// Returns the part of a message in the end of its channel.
    pub(crate) fn part(&self, number: u64, error: &lapin::Error) -> Part {
        let Some(refused) = self.refused(error) else { return Part::Unknown };
        match number {
            number if number > refused.last => Part::Behind,
            number if number == refused.first && number == refused.last => Part::Refused,
            _ => Part::Unknown,
        }
    }

    /// Returns the messages of which one was refused.
    fn refused(&self, error: &lapin::Error) -> Option<Span> {
        let ClientErrorKind::ProtocolError(refusal) = error.kind() else { return None };
        let words = refusal.get_message().as_str();
        if !error.is_amqp_soft_error() {
            return None;
        }
        if let Some(exchange) = named_exchange(words) {
            return self.exchanges.get(exchange).copied();
        }
        let (_, rest) = words.split_once("message size ")?;
        let size = rest.split_once(' ')?.0.parse().ok()?;
        let last = self.sizes[bits(size)];
        // Others of this size may have been sent before.
        Some(Span { first: 0, last }).filter(|_| last > 0)
    }
}

/// Returns the exchange that the broker names as the reason for the end of a channel.
pub(crate) fn named_exchange(words: &str) -> Option<&str> {
    let (_, rest) = words.split_once("exchange '")?;
    rest.split_once('\'').map(|(exchange, _)| exchange)
}

fn bits(size: usize) -> usize {
    (usize::BITS - size.leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};

    use super::*;

    fn ended(kind: impl Into<AMQPErrorKind>, words: &str) -> lapin::Error {
        ClientErrorKind::ProtocolError(AMQPError::new(kind.into(), words.into())).into()
    }

    fn missing(exchange: &str) -> lapin::Error {
        ended(AMQPSoftError::NOTFOUND, &format!("NOT_FOUND - no exchange '{exchange}' in vhost '/'"))
    }

    fn sent(messages: &[(&str, usize)]) -> Sequence {
        let mut sequence = Sequence::new();
        for (exchange, size) in messages {
            sequence.next(&(*exchange).into(), *size);
        }
        sequence
    }

    fn parts(sequence: &Sequence, error: &lapin::Error) -> Vec<Part> {
        (1..=sequence.count).map(|number| sequence.part(number, error)).collect()
    }

    #[test]
    fn what_was_sent_after_the_last_candidate_was_not_taken() {
        use Part::{Behind, Refused, Unknown};
        let sequence = sent(&[("a", 1), ("b", 1), ("a", 1)]);
        assert_eq!(parts(&sequence, &missing("b")), [Unknown, Refused, Behind]);
        // The broker may have taken the first one to the exchange, and refused the last.
        assert_eq!(parts(&sequence, &missing("a")), [Unknown, Unknown, Unknown]);
        assert_eq!(parts(&sequence, &missing("c")), [Unknown; 3], "not by a message of this channel");
        let hard = ended(AMQPHardError::INTERNALERROR, "INTERNAL_ERROR - no exchange 'b'");
        assert_eq!(parts(&sequence, &hard), [Unknown; 3], "the connection ended");
    }

    #[test]
    fn a_size_tells_as_much_as_an_exchange() {
        use Part::{Behind, Unknown};
        let sequence = sent(&[("a", 10), ("a", 5000), ("b", 10), ("b", 4097), ("a", 0)]);
        let large = |size| {
            let words = format!("PRECONDITION_FAILED - message size {size} is larger than configured max size 4000");
            ended(AMQPSoftError::PRECONDITIONFAILED, &words)
        };
        // Sizes of as many bits count as equal.
        assert_eq!(parts(&sequence, &large(5000)), [Unknown, Unknown, Unknown, Unknown, Behind]);
        assert_eq!(parts(&sequence, &large(1_000_000)), [Unknown; 5]);
    }
}

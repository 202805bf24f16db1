//! The subject on which a delivery is acknowledged; the server writes its data about the delivery
//! into it.

use std::time::{Duration, SystemTime};

/// The server's data about one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// The number of this delivery of the message to this consumer, from 1.
    pub(crate) delivered: u32,
    /// The sequence of the message in its stream.
    pub(crate) stream_sequence: u64,
    /// The sequence of the delivery among those of its consumer.
    pub(crate) consumer_sequence: u64,
    /// The time at which the server stored the message.
    pub(crate) published: Option<SystemTime>,
}

const PREFIX: &str = "$JS.ACK.";

impl Tokens {
    /// Reads the subject; `None` if it is not one to acknowledge on, as with the server's own
    /// notices.
    ///
    /// There are two forms, distinguished by their length: `stream.consumer.…`, and the same after
    /// domain and account.
    pub(crate) fn read(subject: &str) -> Option<Self> {
        let rest = subject.strip_prefix(PREFIX)?;
        let before = match rest.bytes().filter(|byte| *byte == b'.').count() + 1 {
            7 => 2,
            9.. => 4,
            _ => return None,
        };
        let mut tokens = rest.split('.').skip(before);
        let mut number = || tokens.next()?.parse::<u64>().ok();
        let delivered = number()?;
        let (stream_sequence, consumer_sequence) = (number()?, number()?);
        let published = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(number()?));
        let delivered = u32::try_from(delivered).unwrap_or(u32::MAX);
        Some(Self { delivered, stream_sequence, consumer_sequence, published })
    }
}

/// Returns the subject on which to acknowledge a message that did not come as a delivery.
///
/// The server uses the sequence only; the other tokens only have to be numbers.
pub(crate) fn acknowledge(stream: &str, consumer: &str, sequence: u64) -> String {
    format!("{PREFIX}{stream}.{consumer}.1.{sequence}.{sequence}.0.0")
}

/// Returns the subject on which to send back a message that has not come, to a consumer that has
/// made so many deliveries. The server looks at the sequence of the delivery too: it has to be one
/// that may be unsettled.
pub(crate) fn send_back(stream: &str, consumer: &str, sequence: u64, deliveries: u64) -> String {
    format!("{PREFIX}{stream}.{consumer}.1.{sequence}.{deliveries}.0.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms() {
        let expected = Tokens {
            delivered: 3,
            stream_sequence: 100,
            consumer_sequence: 7,
            published: Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(1_790_230_470_084_404_000)),
        };
        let short = "$JS.ACK.orders.workers.3.100.7.1790230470084404000.42";
        let long = "$JS.ACK._.hash.orders.workers.3.100.7.1790230470084404000.42";
        assert_eq!(Tokens::read(short), Some(expected));
        assert_eq!(Tokens::read(long), Some(expected));
        assert_eq!(Tokens::read(&format!("{long}.token")), Some(expected));
        assert_eq!(Tokens::read(&acknowledge("orders", "workers", 5)).unwrap().stream_sequence, 5);
    }

    #[test]
    fn anything_else_is_no_delivery() {
        for subject in
            ["", "orders", "$JS.ACK.", "$JS.ACK.a.b.1.2.3.4", "$JS.ACK.a.b.x.2.3.4.5", "$JS.ACK.a.b.1.2.3.4.5.6"]
        {
            assert_eq!(Tokens::read(subject), None, "{subject}");
        }
    }
}

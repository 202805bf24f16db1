//! The subject on which a delivery is acknowledged; the server writes into it what it knows of the delivery.

use std::time::{Duration, SystemTime};

/// What the server says of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tokens {
    /// Which delivery of this message to this consumer it is, from 1.
    pub(super) delivered: u32,
    /// The place of the message in its stream.
    pub(super) stream_sequence: u64,
    /// The place of the delivery among those of its consumer.
    pub(super) consumer_sequence: u64,
    /// When the server stored the message.
    pub(super) published: Option<SystemTime>,
}

const PREFIX: &str = "$JS.ACK.";

impl Tokens {
    /// Reads the subject; `None` when it is not one to acknowledge on, as with the server's own notices.
    ///
    /// There are two forms, told apart by their length: `stream.consumer.…`, and with the domain and account before it.
    pub(super) fn read(subject: &str) -> Option<Self> {
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

/// The subject on which a message of a consumer is acknowledged that came in another way than by delivery.
///
/// The server goes by the sequence alone; the other places only have to be numbers.
pub(super) fn acknowledge(stream: &str, consumer: &str, sequence: u64) -> String {
    format!("{PREFIX}{stream}.{consumer}.1.{sequence}.{sequence}.0.0")
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

//! Times in the server's form: it counts nanoseconds since 1970 in 63 bits, which last until 2262.

use std::time::{Duration, SystemTime};

const DAY: u64 = 86_400;

/// Returns the time since 1970, or the nearest that the server can count.
fn nearest(time: SystemTime) -> Duration {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.min(Duration::from_nanos(i64::MAX.unsigned_abs()))
}

/// Returns the time in RFC 3339, or the nearest that the server can count.
pub(crate) fn nearest_rfc3339(time: SystemTime) -> String {
    written(nearest(time))
}

/// Returns the time in RFC 3339, exact to the nanosecond; `None` if it is later than the server can
/// count.
pub(crate) fn rfc3339(time: SystemTime) -> Option<String> {
    let since = nearest(time);
    let is_beyond = time.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|exact| exact != since);
    (!is_beyond).then(|| written(since))
}

fn written(since: Duration) -> String {
    let (mut days, second) = (since.as_secs() / DAY, since.as_secs() % DAY);
    let mut year = 1970;
    while let Some(rest) = days.checked_sub(365 + leap_days(year)) {
        (days, year) = (rest, year + 1);
    }
    let mut month = 1;
    for length in [31, 28 + leap_days(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        let Some(rest) = days.checked_sub(length) else {
            break;
        };
        (days, month) = (rest, month + 1);
    }
    let (day, hour, minute, second) = (days + 1, second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

fn leap_days(year: u64) -> u64 {
    u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)))
}

#[cfg(test)]
mod tests {
    use async_nats::datetime::parse_rfc3339;

    use super::*;

    #[test]
    fn every_day_is_written_as_it_is_read() {
        for day in 0..106_751 {
            let time = SystemTime::UNIX_EPOCH + Duration::new(day * DAY + day % DAY, 123_456_789);
            let text = rfc3339(time).unwrap();
            assert_eq!(SystemTime::from(parse_rfc3339(&text).unwrap()), time, "{text}");
        }
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH).unwrap(), "1970-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn what_the_server_cannot_count_is_told_apart() {
        let last = SystemTime::UNIX_EPOCH + Duration::from_nanos(i64::MAX.unsigned_abs());
        assert_eq!(rfc3339(last).unwrap(), "2262-04-11T23:47:16.854775807Z");
        assert_eq!(rfc3339(last + Duration::from_nanos(1)), None);
        let (before, after) = (SystemTime::UNIX_EPOCH - Duration::from_secs(1), last + Duration::from_secs(1));
        assert_eq!(rfc3339(before).as_deref(), Some("1970-01-01T00:00:00.000000000Z"));
        assert_eq!(
            (nearest_rfc3339(before), nearest_rfc3339(after)),
            (nearest_rfc3339(SystemTime::UNIX_EPOCH), rfc3339(last).unwrap())
        );
    }
}

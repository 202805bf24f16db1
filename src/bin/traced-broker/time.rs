//! Durations and times on the command line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{SignedDuration, Timestamp};
use traced_broker::Start;

/// The longest duration: a year. Adding it to a time never overflows.
const MAX_DURATION: Duration = Duration::from_secs(366 * 86_400);

/// Parses a duration such as `500ms`, `1.5m` or `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|parsed| Duration::try_from(parsed).ok());
    parsed
        .filter(|parsed| *parsed <= MAX_DURATION)
        .ok_or_else(|| format!("`{text}` is not a duration: write a number and ms, s, m or h, as in 500ms or 1.5m"))
}

/// Parses a start position: `earliest`, `latest`, a time such as `2026-11-23T08:00:00Z`, or a
/// duration before now, such as `10m`.
pub(crate) fn start(text: &str) -> Result<Start, String> {
    let ago = || SystemTime::now().checked_sub(duration(text).ok()?);
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        _ => timestamp(text).or_else(ago).map(Start::Time).ok_or_else(|| {
            format!(
                "`{text}` is neither earliest, latest, a time such as 2026-11-23T08:00:00Z, nor a duration \
                 before now such as 10m"
            )
        }),
    }
}

/// Formats the time in UTC, to the millisecond (RFC 3339).
pub(crate) fn format(time: SystemTime) -> String {
    format!("{:.3}", Timestamp::try_from(time).unwrap_or(Timestamp::MAX))
}

/// Parses a time of RFC 3339 that is not before 1970.
fn timestamp(text: &str) -> Option<SystemTime> {
    let time = SystemTime::try_from(text.parse::<Timestamp>().ok()?).ok()?;
    // RFC 3339 requires the seconds, `Timestamp` does not.
    let has_seconds = text.as_bytes().get(16) == Some(&b':');
    (has_seconds && time >= UNIX_EPOCH).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_are_durations() {
        let millis = |text| duration(text).map(|duration| duration.as_millis());
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis("2s"), Ok(2_000));
        assert_eq!(millis("1.5m"), Ok(90_000));
        assert_eq!(millis("1 h"), Ok(3_600_000));
        assert_eq!(millis("0s"), Ok(0));
        assert_eq!(millis("1h30m"), Ok(5_400_000));
    }

    #[test]
    fn other_texts_are_no_durations() {
        for text in ["", "5", "s", "-1s", "2 weeks", "1e9h", "infs", "1s2", "9000h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_and_written() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-23T08:00:00+02:00", 1_795_413_600),
            ("2026-11-23t05:59:59.5-00:01", 1_795_413_659),
            ("2400-12-31 23:59:59z", 13_601_087_999),
        ] {
            let time = timestamp(text).map(|time| time.duration_since(UNIX_EPOCH).unwrap());
            assert_eq!(time.map(|time| time.as_secs()), Some(seconds), "{text}");
        }
        for text in ["1970-01-01T00:00:00.000Z", "2026-11-23T06:00:00.123Z", "2024-02-29T23:59:59.999Z"] {
            assert_eq!(format(timestamp(text).unwrap()), text);
        }
    }

    #[test]
    fn other_texts_are_no_times() {
        for text in [
            "",
            "T",
            "2026-11-23",
            "2026-11-23T08:00:00",
            "2026-02-29T08:00:00Z",
            "2026-13-01T08:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T08:00Z",
            "2026-11-23T08:00:00.Z",
            "2026-11-23T08:00:00+2",
            "+026-11-23T08:00:00Z",
            "1969-12-31T23:59:59Z",
        ] {
            assert_eq!(timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn a_start_is_a_word_a_time_or_a_duration_before_now() {
        assert_eq!(start("earliest"), Ok(Start::Earliest));
        assert_eq!(start("latest"), Ok(Start::Latest));
        assert_eq!(start("1970-01-01T00:00:00Z"), Ok(Start::Time(UNIX_EPOCH)));
        let Ok(Start::Time(time)) = start("10m") else { panic!("no time") };
        let ago = SystemTime::now().duration_since(time).unwrap();
        assert!((600..605).contains(&ago.as_secs()), "{ago:?}");
        assert!(start("yesterday").unwrap_err().contains("`yesterday`"));
    }
}

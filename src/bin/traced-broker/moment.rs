//! Moments: where to begin, and when something was.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use traced_broker::Start;

use crate::duration;

const DAY: i64 = 86_400;

/// Reads where to begin: `earliest`, `latest`, a time such as `2026-11-23T08:00:00Z`, or how long ago, such as `10m`.
pub(crate) fn start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => return Ok(Start::Earliest),
        "latest" => return Ok(Start::Latest),
        _ => {}
    }
    if let Some(time) = parse(text) {
        return Ok(Start::Time(time));
    }
    let ago = duration::parse(text).ok().and_then(|ago| SystemTime::now().checked_sub(ago));
    ago.map(Start::Time).ok_or_else(|| {
        format!("`{text}` is neither earliest, latest, a time as 2026-11-23T08:00:00Z, nor how long ago, as 10m")
    })
}

/// The time in UTC, to the millisecond (RFC 3339).
pub(crate) fn format(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() as i64 / DAY, since.as_secs() as i64 % DAY);
    let (year, month, day) = date(days);
    let (hour, minute, second, millis) = (seconds / 3_600, seconds / 60 % 60, seconds % 60, since.subsec_millis());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Reads a time of RFC 3339.
fn parse(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(zone_at);
    let mut parts = date.split('-');
    let (year, month, day) = (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = sixties(time)?;
    let is_right = parts.next().is_none() && (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    if !is_right || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let nanos = fraction.bytes().all(|byte| byte.is_ascii_digit()) && (1..=9).contains(&fraction.len());
    let nanos = nanos.then(|| format!("{fraction:0<9}"))?.parse().ok()?;
    let seconds = days_until(year, month, day) * DAY + hour * 3_600 + minute * 60 + second - offset(zone)?;
    UNIX_EPOCH.checked_add(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

/// Hours, minutes and seconds.
fn sixties(text: &str) -> Option<[i64; 3]> {
    let mut parts = text.split(':').map(|part| digits(part, 2));
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

/// By how many seconds a zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    let ahead = hours * 3_600 + minutes * 60;
    (hours < 24 && minutes < 60).then_some(if zone.starts_with('-') { -ahead } else { ahead })
}

fn digits(text: &str, count: usize) -> Option<i64> {
    let are_digits = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    are_digits.then(|| text.parse().ok())?
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && year % 100 != 0 || year % 400 == 0
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// How many days lie between 1970 and that one.
fn days_until(year: i64, month: i64, day: i64) -> i64 {
    let leaps = |years: i64| years / 4 - years / 100 + years / 400;
    let of_years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    let of_months: i64 = (1..month).map(|month| days_in(year, month)).sum();
    of_years + of_months + day - 1
}

/// Year, month and day of that many days after the first of 1970.
fn date(days: i64) -> (i64, i64, i64) {
    // Close to it, and never later: no year is longer than 366 days.
    let mut year = 1970 + days / 366;
    while days_until(year + 1, 1, 1) <= days {
        year += 1;
    }
    let (mut month, mut left) = (1, days - days_until(year, 1, 1));
    while left >= days_in(year, month) {
        left -= days_in(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-23T08:00:00+02:00", 1_795_413_600),
            ("2026-11-23t05:59:59.5-00:01", 1_795_413_659),
            ("2400-12-31 23:59:59z", 13_601_087_999),
        ] {
            let time = parse(text).map(|time| time.duration_since(UNIX_EPOCH).unwrap());
            assert_eq!(time.map(|time| time.as_secs()), Some(seconds), "{text}");
        }
        for text in ["1970-01-01T00:00:00.000Z", "2026-11-23T06:00:00.123Z", "2024-02-29T23:59:59.999Z"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }

    #[test]
    fn what_is_no_time_is_not_read() {
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
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_start_is_a_word_a_time_or_how_long_ago() {
        assert_eq!(start("earliest"), Ok(Start::Earliest));
        assert_eq!(start("latest"), Ok(Start::Latest));
        assert_eq!(start("1970-01-01T00:00:00Z"), Ok(Start::Time(UNIX_EPOCH)));
        let Ok(Start::Time(time)) = start("10m") else { panic!("no time") };
        let ago = SystemTime::now().duration_since(time).unwrap();
        assert!((600..605).contains(&ago.as_secs()), "{ago:?}");
        assert!(start("yesterday").unwrap_err().contains("`yesterday`"));
    }
}

//! Durations on the command line.

use std::time::Duration;

/// Reads `500ms`, `2s`, `1.5m` or `1h`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: write a number and ms, s, m or h, as in 500ms or 1.5m");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.trim_end().parse().map_err(|_| wrong())?;
    // A year is longer than anything here may last, and short enough to reckon with.
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|duration| *duration <= Duration::from_secs(366 * 86_400))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_are_durations() {
        let millis = |text| parse(text).map(|duration| duration.as_millis());
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis("2s"), Ok(2_000));
        assert_eq!(millis("1.5m"), Ok(90_000));
        assert_eq!(millis("1 h"), Ok(3_600_000));
        assert_eq!(millis("0s"), Ok(0));
    }

    #[test]
    fn nothing_else_is() {
        for text in ["", "5", "s", "-1s", "2 weeks", "1e9h", "infs", "1s2"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

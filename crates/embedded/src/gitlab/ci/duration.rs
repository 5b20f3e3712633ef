//! Lengths of time as GitLab lets people write them: `1h 30m`, `2 hrs 20 min`, `7d`, `1 week and 2 days`.

use std::time::Duration;

/// `None` if it is not a length of time. A number alone counts seconds.
pub(super) fn parse(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut rest = text.trim();
    let mut total = 0.0;
    let mut parts = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..number_end].parse().ok()?;
        let after = rest[number_end..].trim_start();
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        total += number * seconds_of(&after[..unit_end].to_ascii_lowercase())?;
        parts += 1;
        rest = after[unit_end..].trim_start_matches([' ', '\t', ',']);
        for word in ["and ", "with ", "plus "] {
            rest = rest.strip_prefix(word).unwrap_or(rest).trim_start();
        }
    }
    if parts == 0 { None } else { Duration::try_from_secs_f64(total).ok() }
}

fn seconds_of(unit: &str) -> Option<f64> {
    const DAY: f64 = 86_400.0;
    Some(match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0,
        "d" | "dy" | "day" | "days" => DAY,
        "w" | "wk" | "wks" | "week" | "weeks" => 7.0 * DAY,
        "mo" | "mon" | "mos" | "mth" | "mths" | "month" | "months" => 30.0 * DAY,
        "y" | "yr" | "yrs" | "year" | "years" => 365.25 * DAY,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("1h 30m", Some(5_400)),
            ("30 minutes", Some(1_800)),
            ("3 hours 30 minutes", Some(12_600)),
            ("2 hrs 20 min", Some(8_400)),
            ("6 mos 1 day", Some(6 * 30 * 86_400 + 86_400)),
            ("2h20min", Some(8_400)),
            ("1 week and 2 days", Some(9 * 86_400)),
            ("3 mins, 4 sec", Some(184)),
            ("1.5h", Some(5_400)),
            ("42", Some(42)),
            ("7d", Some(604_800)),
            ("never", None),
            ("", None),
            ("1 fortnight", None),
            ("h", None),
            ("1h 30", None),
            ("99999999999999999999999 years", None),
            ("1..5h", None),
        ] {
            assert_eq!(parse(text), seconds.map(Duration::from_secs), "{text:?}");
        }
    }
}

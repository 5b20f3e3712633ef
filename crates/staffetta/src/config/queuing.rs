//! `[runners.monitoring]`: how long a job may wait in GitLab's queue before it is counted (protocol 10.3, 10.6).

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use job::payload::JobInfo;
use regex_automata::meta::Regex;

use super::section::Section;

/// One `[[runners.monitoring.job_queuing_durations]]`.
#[derive(Debug, Clone)]
pub struct QueuingDuration {
    periods: Vec<Period>,
    timezone: TimeZone,
    threshold: Duration,
    /// GitLab's word for how many jobs of the project run must match it; none matches all.
    jobs_running: Option<Regex>,
}

/// Whether a job that came at `now` waited longer than is acceptable. Of several entries whose period it is, the last counts.
pub fn is_exceeded(durations: &[QueuingDuration], info: &JobInfo, now: Timestamp) -> bool {
    let active = durations.iter().rev().find(|duration| duration.is_active(now));
    active.is_some_and(|active| {
        let threshold = active.threshold.as_secs_f64();
        let running = info.project_jobs_running_on_instance_runners_count.as_str();
        threshold > 0.0
            && info.time_in_queue_seconds > threshold
            && active.jobs_running.as_ref().is_none_or(|pattern| pattern.is_match(running))
    })
}

impl QueuingDuration {
    fn is_active(&self, now: Timestamp) -> bool {
        let here = now.to_zoned(self.timezone.clone()).datetime();
        self.periods.iter().any(|period| period.has(here))
    }
}

pub fn queuing_durations(runner: &mut Section) -> Vec<QueuingDuration> {
    let Some(mut section) = runner.section("monitoring") else { return Vec::new() };
    let durations = section.sections("job_queuing_durations", one);
    section.finish(&[]);
    durations
}

fn one(mut section: Section) -> QueuingDuration {
    let texts = section.words("periods");
    if texts.is_empty() {
        section.missing("periods", "without one the entry never applies; [\"* * * * * * *\"] is always");
    }
    let mut periods = Vec::new();
    for text in &texts {
        match Period::parse(text) {
            Some(period) => periods.push(period),
            None => section.wrong("periods", &format!("has {text:?}, {NO_PERIOD}")),
        }
    }
    let timezone = match section.filled_text("timezone") {
        Some(name) => TimeZone::get(&name.value).unwrap_or_else(|_| {
            section.wrong("timezone", "must be a time zone such as \"Europe/Rome\" that this machine knows (tzdata)");
            TimeZone::UTC
        }),
        None => TimeZone::system(),
    };
    let threshold = section.duration("threshold").unwrap_or_default();
    let jobs_running = section.filled_text("jobs_running_for_project").and_then(|found| {
        let pattern = Regex::new(&found.value);
        if pattern.is_err() {
            section.wrong("jobs_running_for_project", "must be a regular expression");
        }
        pattern.ok()
    });
    section.finish(&[]);
    QueuingDuration { periods, timezone, threshold, jobs_running }
}

const NO_PERIOD: &str = "which is no period: write seven fields as in crontab(5), for second, minute, hour, day, month, day of the \
                         week and year, such as \"* * 10-18 * * mon-fri *\"";

/// A set of seconds, as in crontab(5), with a field before for the second and one after for the year.
#[derive(Debug, Clone)]
struct Period {
    second: Field,
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
    year: Field,
}

/// The values that a field allows.
#[derive(Debug, Clone)]
struct Field {
    values: Vec<i16>,
    is_any: bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Period {
    /// Without a year, six fields are those from the minute on with it, and five those without: the second is then 0.
    fn parse(text: &str) -> Option<Self> {
        let given: Vec<&str> = text.split_whitespace().collect();
        let fields: [&str; 7] = match given[..] {
            [minute, hour, day, month, weekday] => ["0", minute, hour, day, month, weekday, "*"],
            [minute, hour, day, month, weekday, year] => ["0", minute, hour, day, month, weekday, year],
            _ => given.try_into().ok()?,
        };
        let [second, minute, hour, day, month, weekday, year] = fields;
        let mut weekday = Field::parse(weekday, 0, 7, &DAYS, 0)?;
        // Sunday is 0 and 7.
        weekday.values.iter_mut().filter(|day| **day == 7).for_each(|day| *day = 0);
        Some(Self {
            second: Field::parse(second, 0, 59, &[], 0)?,
            minute: Field::parse(minute, 0, 59, &[], 0)?,
            hour: Field::parse(hour, 0, 23, &[], 0)?,
            day: Field::parse(day, 1, 31, &[], 0)?,
            month: Field::parse(month, 1, 12, &MONTHS, 1)?,
            weekday,
            year: Field::parse(year, 1970, 2099, &[], 0)?,
        })
    }

    fn has(&self, time: DateTime) -> bool {
        let day = self.day.has(time.day().into());
        let weekday = self.weekday.has(time.weekday().to_sunday_zero_offset().into());
        // As in cron: of two that are both restricted, one is enough.
        let is_day = if self.day.is_any || self.weekday.is_any { day && weekday } else { day || weekday };
        is_day
            && self.second.has(time.second().into())
            && self.minute.has(time.minute().into())
            && self.hour.has(time.hour().into())
            && self.month.has(time.month().into())
            && self.year.has(time.year())
    }
}

impl Field {
    fn has(&self, value: i16) -> bool {
        self.is_any || self.values.contains(&value)
    }

    /// A list of `*`, `7`, `1-5`, `*/10` and `1-30/2`; `names` count from `first_name`.
    fn parse(text: &str, least: i16, most: i16, names: &[&str], first_name: i16) -> Option<Self> {
        let number = |text: &str| {
            let named = names.iter().position(|name| text.to_ascii_lowercase().starts_with(name));
            let value = match named {
                Some(index) => first_name + i16::try_from(index).ok()?,
                None => text.parse().ok()?,
            };
            (least..=most).contains(&value).then_some(value)
        };
        let mut values = Vec::new();
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, step.parse().ok().filter(|step: &usize| *step > 0)?),
                None => (part, 1),
            };
            let (from, to) = match range.split_once('-') {
                _ if range == "*" || range == "?" => (least, most),
                Some((from, to)) => (number(from)?, number(to)?),
                None if step > 1 => (number(range)?, most),
                None => (number(range)?, number(range)?),
            };
            values.extend((from..=to).step_by(step));
        }
        (!values.is_empty()).then_some(Self { values, is_any: text == "*" || text == "?" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime {
        text.parse().unwrap()
    }

    #[test]
    fn a_period_is_read_as_cron_reads_it() {
        // 2026-01-30 is a Friday.
        for (period, time, expected) in [
            ("* * 10-18 * * mon-fri *", "2026-01-30T10:00:00", true),
            ("* * 10-18 * * mon-fri *", "2026-01-30T18:59:59", true),
            ("* * 10-18 * * mon-fri *", "2026-01-30T19:00:00", false),
            ("* * 10-18 * * mon-fri *", "2026-01-31T12:00:00", false),
            ("* * * * * sat,7 *", "2026-01-31T12:00:00", true),
            ("* * * * * sat,7 *", "2026-02-01T12:00:00", true),
            ("* */15 * * * * *", "2026-01-30T10:45:09", true),
            ("* */15 * * * * *", "2026-01-30T10:46:09", false),
            ("* * * 1 * fri *", "2026-01-30T10:00:00", true),
            ("* * * 1 jan-feb * *", "2026-02-01T10:00:00", true),
            ("* * * * * * 2027", "2026-02-01T10:00:00", false),
            ("30 10 * * *", "2026-01-30T10:30:00", true),
            ("30 10 * * *", "2026-01-30T10:30:01", false),
        ] {
            assert_eq!(Period::parse(period).unwrap().has(at(time)), expected, "{period} {time}");
        }
        for wrong in
            ["", "* * *", "60 * * * * * *", "* * 24 * * * *", "* * * * * noday *", "*/0 * * * * * *", "5-1 * * * * * *"]
        {
            assert!(Period::parse(wrong).is_none(), "{wrong}");
        }
    }

    fn entry(period: &str, threshold: u64, jobs_running: Option<&str>) -> QueuingDuration {
        QueuingDuration {
            periods: vec![Period::parse(period).unwrap()],
            timezone: TimeZone::UTC,
            threshold: Duration::from_secs(threshold),
            jobs_running: jobs_running.map(|pattern| Regex::new(pattern).unwrap()),
        }
    }

    #[test]
    fn the_last_entry_of_the_hour_decides_what_waited_too_long() {
        let now: Timestamp = "2026-01-30T12:00:00Z".parse().unwrap();
        let waited = |seconds, running: &str| JobInfo {
            time_in_queue_seconds: seconds,
            project_jobs_running_on_instance_runners_count: running.into(),
            ..JobInfo::default()
        };
        let always = "* * * * * * *";
        let strict = entry(always, 10, None);
        assert!(is_exceeded(std::slice::from_ref(&strict), &waited(10.5, "0"), now));
        assert!(!is_exceeded(std::slice::from_ref(&strict), &waited(10.0, "0"), now));
        let both = [strict.clone(), entry(always, 60, None), entry("* * 0-6 * * * *", 1, None)];
        assert!(!is_exceeded(&both, &waited(59.0, "0"), now), "the second is the last one of noon");
        let of_small_projects = [entry(always, 10, Some("^(0|1)$"))];
        assert!(is_exceeded(&of_small_projects, &waited(11.0, "1"), now));
        assert!(!is_exceeded(&of_small_projects, &waited(11.0, "5+"), now));
        assert!(!is_exceeded(&[], &waited(1e9, "0"), now));
        assert!(!is_exceeded(&[entry(always, 0, None)], &waited(1e9, "0"), now), "0 is no threshold");
    }
}

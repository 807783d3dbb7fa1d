//! Durations of drills and of slow answers, as written on the command line.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Accepted lengths of a drill.
pub const LENGTH_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

/// Parses `250ms`, `20s`, `5m` or `1h`; `None` above the end of [`LENGTH_RANGE`].
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit_start = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_start);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.trim() {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= *LENGTH_RANGE.end())
}

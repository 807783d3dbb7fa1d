//! Parsers of the latency of endpoints: quantiles, or a file.
//!
//! A file has two columns, milliseconds and the count of responses, or is the percentile text of
//! HdrHistogram and wrk2.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use crate::sim::latency::{LatencyDistribution, LatencyModel};

/// The first word of the line above the percentiles of HdrHistogram.
const HDR_HEADING: &str = "Value";

/// Parses `--latency`: `p50=2ms,p99=20ms,max=1s`, one duration for all, or a file.
///
/// # Errors
/// Explains the error, its place, and how to write the value.
pub(in crate::cli) fn parse_latency(given: &str) -> Result<LatencyModel, String> {
    if given.contains('=') {
        return parse_quantiles(given);
    }
    if let Some(fixed) = parse_duration(given) {
        return Ok(LatencyModel::Fixed(fixed));
    }
    let text = std::fs::read_to_string(Path::new(given)).map_err(|error| {
        format!("{given}: {error}; write a file's name, or quantiles such as p50=2ms,p99=20ms")
    })?;
    parse_latency_file(&text).map_err(|(line, what)| format!("{given}:{line}: {what}"))
}

fn parse_quantiles(given: &str) -> Result<LatencyModel, String> {
    let mut quantiles: Vec<(f64, Duration)> = Vec::new();
    let mut max = None;
    for part in given.split(',') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let at = parse_duration(value)
            .filter(|at| !at.is_zero())
            .ok_or_else(|| format!("`{value}` is not a duration; write it as {name}=20ms"))?;
        if name.trim() == "max" {
            max = Some(at);
            continue;
        }
        let percent = name.trim().strip_prefix('p').and_then(|digits| digits.parse::<f64>().ok());
        let percent = percent.filter(|percent| 0.0 < *percent && *percent < 100.0);
        let percent = percent
            .ok_or_else(|| format!("`{name}` is not a quantile; write p50, p99, p99.9 or max"))?;
        quantiles.push((percent / 100.0, at));
    }
    quantiles.sort_by(|a, b| a.0.total_cmp(&b.0));
    let distribution = LatencyDistribution::from_quantiles(&quantiles, max);
    distribution.map(|drawn| LatencyModel::Distributed(Arc::new(drawn))).ok_or_else(|| {
        "two quantiles at least, the higher one longer: write p50=2ms,p99=20ms,max=1s".to_owned()
    })
}

/// Parses the text of a file; an error is the number of the line and its problem.
fn parse_latency_file(text: &str) -> Result<LatencyModel, (usize, String)> {
    let is_hdr = text.lines().any(|line| line.trim_start().starts_with(HDR_HEADING));
    let distribution = if is_hdr { parse_percentiles(text)? } else { parse_counts(text)? };
    let distribution = distribution.ok_or_else(|| (1, "no answer is counted here".to_owned()))?;
    Ok(LatencyModel::Distributed(Arc::new(distribution)))
}

/// Lines with their numbers, except for comments and empty lines.
fn numbered_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn parse_counts(text: &str) -> Result<Option<LatencyDistribution>, (usize, String)> {
    let mut all = Vec::new();
    for (number, line) in numbered_lines(text) {
        let line_error = |what: String| (number, what);
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [latency, count] = columns[..] else {
            let found = columns.len();
            return Err(line_error(format!(
                "{found} columns; write two, milliseconds and how many: `2.5 1000`"
            )));
        };
        let at = parse_milliseconds(latency)
            .ok_or_else(|| line_error(format!("`{latency}` is not a number of milliseconds")))?;
        let count: u64 = count
            .parse()
            .map_err(|_| line_error(format!("`{count}` is not a whole number of answers")))?;
        all.push((at, count));
    }
    Ok(LatencyDistribution::from_counts(&all))
}

/// Parses two columns: milliseconds, and the share of responses that took at most as long.
fn parse_percentiles(text: &str) -> Result<Option<LatencyDistribution>, (usize, String)> {
    let mut steps: Vec<(f64, Duration)> = Vec::new();
    let body = numbered_lines(text).skip_while(|(_, line)| !line.starts_with(HDR_HEADING)).skip(1);
    for (number, line) in body {
        let mut columns = line.split_whitespace();
        let (Some(latency), Some(share)) = (columns.next(), columns.next()) else {
            return Err((number, "one column; write milliseconds and the percentile".to_owned()));
        };
        let at = parse_milliseconds(latency)
            .ok_or_else(|| (number, format!("`{latency}` is not a number of milliseconds")))?;
        let share: f64 =
            share.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| {
                (number, format!("`{share}` is not a percentile; write it from 0 to 1, as 0.99"))
            })?;
        if steps.last().is_some_and(|(before, earlier)| share < *before || at < *earlier) {
            return Err((number, "smaller than on the line above; sort the lines".to_owned()));
        }
        steps.push((share, at));
    }
    Ok(LatencyDistribution::from_steps(&steps))
}

fn parse_milliseconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse::<f64>().ok()? / 1e3).ok()
}

/// Parses `250ms`, `1s`.
pub(in crate::cli) fn parse_duration(text: &str) -> Option<Duration> {
    text.trim().parse::<SignedDuration>().ok()?.try_into().ok()
}

/// Parses a percentage; returns a ratio from 0 to below 1.
///
/// # Errors
/// Explains how to write the value.
pub(in crate::cli) fn parse_percent(given: &str) -> Result<f64, String> {
    let number = given.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    let share = number.map(|percent| percent / 100.0).filter(|share| (0.0..1.0).contains(share));
    share.ok_or_else(|| "write a share from 0% to below 100%, as 1% or 0.5%".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share_beyond(latency: &LatencyModel, ms: u64) -> f64 {
        latency.share_above(Duration::from_millis(ms))
    }

    #[test]
    fn quantiles_are_parsed_in_any_order() {
        let read = parse_latency("p99=20ms,p50=2ms,max=1s").expect("good");
        assert!((share_beyond(&read, 20) - 0.01).abs() < 1e-6 && share_beyond(&read, 1_000) == 0.0);
        assert_eq!(parse_latency("3ms"), Ok(LatencyModel::Fixed(Duration::from_millis(3))));
    }

    #[test]
    fn bad_latency_explains_the_syntax() {
        for (given, word) in [
            ("p50=2", "`2` is not a duration"),
            ("q50=2ms", "`q50` is not a quantile"),
            ("p50=2ms", "two quantiles"),
            ("p50=20ms,p99=2ms", "two quantiles"),
            ("/no/such/file", "/no/such/file"),
        ] {
            let error = parse_latency(given).expect_err(given);
            assert!(error.contains(word), "{error}");
        }
        assert!(
            parse_percent("1").is_err()
                && parse_percent("100%").is_err()
                && parse_percent("-1%").is_err()
        );
        assert_eq!(parse_percent("0.5%"), Ok(0.005));
    }

    #[test]
    fn counts_are_parsed_and_errors_name_the_line() {
        let read = parse_latency_file("# ms count\n1 50\n2.5 25\n\n9 25\n").expect("good");
        assert_eq!(
            (share_beyond(&read, 1), share_beyond(&read, 2), share_beyond(&read, 9)),
            (0.5, 0.5, 0.0)
        );
        for (text, line, word) in [
            ("1 50\n2.5\n", 2, "1 columns"),
            ("1 50\nx 3\n", 2, "`x` is not a number"),
            ("# c\n1 many\n", 2, "`many` is not a whole number"),
            ("-1 3\n", 1, "`-1` is not a number"),
            ("1 0\n", 1, "no answer"),
            ("", 1, "no answer"),
        ] {
            let (at, what) = parse_latency_file(text).expect_err(text);
            assert!(at == line && what.contains(word), "{text:?}: {at} {what}");
        }
    }

    #[test]
    fn hdr_histogram_percentiles_are_parsed() {
        let text = "  Detailed Percentile spectrum:\n       Value   Percentile   TotalCount \
                    1/(1-Percentile)\n\n       0.921     0.000000            1         1.00\n      \
                    1.500     0.900000          900        10.00\n       7.000     1.000000         \
                    1000          inf\n#[Mean    =        1.110, StdDeviation   =        0.52]\n";
        let read = parse_latency_file(text).expect("good");
        assert!((share_beyond(&read, 2) - 0.1).abs() < 1e-9 && share_beyond(&read, 7) == 0.0);
        let (line, what) =
            parse_latency_file("Value Percentile\n1.0 0.5\n2.0 50\n").expect_err("a percentile");
        assert!(line == 3 && what.contains("`50` is not a percentile"), "{what}");
        let (line, what) =
            parse_latency_file("Value Percentile\n1.0 0.5\n0.5 0.9\n").expect_err("unsorted");
        assert!(line == 3 && what.contains("sort the lines"), "{what}");
    }
}

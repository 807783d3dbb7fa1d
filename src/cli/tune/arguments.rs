//! The arguments of `gapless tune`.

use std::time::Duration;

use super::YEAR_HOURS;
use crate::cli::predict::latency::{parse_duration, parse_percent};
use crate::cli::predict::observed::{ObservedLatency, parse_observed};
use crate::sim::predict::{self, FaultKind};

/// The arguments of `gapless tune`.
#[derive(Clone, Debug, clap::Args)]
pub struct TuneArguments {
    /// The detection window: 99 of 100 failures that probes can detect get their verdict within it,
    /// without any traffic
    #[arg(long, value_parser = parse_target)]
    pub(super) target: Duration,
    /// Tune this pool only; the others stay as they are
    #[arg(long, value_name = "NAME")]
    pub(super) pool: Option<String>,
    /// A class of failure that must be detected in time, may be repeated [default: all that probes
    /// can detect]
    #[arg(long = "class", value_name = "CLASS", value_parser = parse_class)]
    pub(super) classes: Vec<FaultKind>,
    /// The most false verdicts, on all tuned endpoints together
    #[arg(long, value_name = "RATE", default_value = "1/year", value_parser = parse_yearly_rate)]
    pub(super) false_verdicts: f64,
    /// The most probes of the whole configuration [default: its probes.per_second]
    #[arg(long, value_name = "RATE", value_parser = parse_per_second)]
    pub(super) probe_budget: Option<f64>,
    /// The latency of endpoints: the admin listener of a running instance (http://127.0.0.1:9900),
    /// its metrics in a file, a file with a histogram, or p50=2ms,p99=20ms,max=1s
    #[arg(long, visible_alias = "latency", value_name = "FILE|URL", default_value = "1ms", value_parser = parse_observed)]
    pub(super) observed: ObservedLatency,
    /// The share of a probe's attempts that are lost; a higher observed share overrides it
    #[arg(long, default_value = "0.1%", value_parser = parse_percent)]
    pub(super) loss: f64,
    /// Show the prediction with this traffic too, in requests per second to each pool
    #[arg(long)]
    pub(super) rate: Option<f64>,
    /// Number of trials of each fault and scope
    #[arg(long, default_value_t = predict::DEFAULT_TRIALS, value_parser = clap::value_parser!(u32).range(50..=100_000))]
    pub(super) trials: u32,
    /// Seed of the simulation; equal seeds give equal results
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Round trip to an endpoint, in milliseconds [default: 1, or the observed one]
    #[arg(long = "rtt-ms", value_name = "MS", value_parser = parse_milliseconds)]
    pub(super) round_trip: Option<Duration>,
}

fn parse_target(given: &str) -> Result<Duration, String> {
    let bounds = Duration::from_millis(10)..=Duration::from_secs(600);
    let target = parse_duration(given).filter(|target| bounds.contains(target));
    target.ok_or_else(|| "write a duration from 10ms to 10m, as 300ms or 1s".to_owned())
}

fn parse_milliseconds(given: &str) -> Result<Duration, String> {
    let read = given.parse().ok().and_then(|ms: f64| Duration::try_from_secs_f64(ms / 1e3).ok());
    read.ok_or_else(|| "write a number of milliseconds, as 0.5".to_owned())
}

fn parse_class(given: &str) -> Result<FaultKind, String> {
    let named = FaultKind::ALL.into_iter().find(|fault| fault.as_str() == given);
    let words = FaultKind::ALL.map(FaultKind::as_str).join(", ");
    named.ok_or_else(|| format!("it is one of {words}"))
}

/// Parses `1/year`, `0.5/month`; returns a rate per year.
fn parse_yearly_rate(given: &str) -> Result<f64, String> {
    let (number, unit) = given.split_once('/').unwrap_or((given, "year"));
    let hours = match unit.trim() {
        "year" => Some(YEAR_HOURS),
        "month" => Some(YEAR_HOURS / 12.0),
        "week" => Some(7.0 * 24.0),
        "day" => Some(24.0),
        "hour" => Some(1.0),
        _ => None,
    };
    let number = number.trim().parse().ok().filter(|number: &f64| *number > 0.0);
    let rate = number.zip(hours).map(|(number, hours)| number * YEAR_HOURS / hours);
    rate.filter(|rate| rate.is_finite())
        .ok_or_else(|| "write how often, as 1/year, 0.5/month, 2/week or 1/day".to_owned())
}

/// Parses `500/s` or `500`.
fn parse_per_second(given: &str) -> Result<f64, String> {
    let number = given.strip_suffix("/s").unwrap_or(given).trim().parse().ok();
    let number = number.filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "write probes a second, as 500/s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_durations_are_parsed_with_units() {
        assert_eq!((parse_yearly_rate("2/year"), parse_yearly_rate("3")), (Ok(2.0), Ok(3.0)));
        assert!((parse_yearly_rate("1/day").expect("a rate") - 365.25).abs() < 1e-9);
        assert!((parse_yearly_rate("1/month").expect("a rate") - 12.0).abs() < 1e-9);
        for bad in ["0/year", "-1/year", "1/fortnight", "often", "inf/year"] {
            assert!(parse_yearly_rate(bad).is_err(), "{bad}");
        }
        assert_eq!((parse_per_second("500/s"), parse_per_second("2.5")), (Ok(500.0), Ok(2.5)));
        assert!(parse_per_second("0/s").is_err() && parse_per_second("500/m").is_err());
        assert_eq!(parse_target("300ms"), Ok(Duration::from_millis(300)));
        assert!(
            parse_target("1ms").is_err()
                && parse_target("300").is_err()
                && parse_target("1h").is_err()
        );
        assert_eq!(parse_class("hang"), Ok(FaultKind::Hang));
        assert!(parse_class("hangs").is_err_and(|why| why.contains("black_hole")));
    }
}

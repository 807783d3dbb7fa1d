//! Observed latency of pools: from the command line, from a file, or from a running instance.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::latency::parse_latency;
use crate::cli::admin_client::{AdminAddress, AdminClientArguments};
use crate::logic::model::outcome::FailureClass;
use crate::sim::latency::{LatencyDistribution, LatencyModel};
use crate::sim::world::attempt_after;

/// The histogram of the duration of passing probes.
const PROBE_DURATION_METRIC: &str = "gapless_probe_duration_seconds_bucket";

/// The number of probes by outcome.
const PROBES_METRIC: &str = "gapless_probes_total";

/// The number of incidents.
const INCIDENTS_METRIC: &str = "gapless_incidents_total";

/// A bucket of a histogram is split into this many equal ones.
const STEPS_PER_BUCKET: u32 = 10;

/// The fastest probe counts as this many round trips: one for the connection, one for the request,
/// and the time of the endpoint.
const ROUND_TRIPS_PER_PROBE: u32 = 3;

/// Round trips on the network in one probe.
const NETWORK_ROUND_TRIPS: u32 = 2;

/// The assumed duration of samples above the last bound of a histogram.
const OVERFLOW_BOUND: Duration = Duration::from_secs(3_600);

/// The latency of endpoints, for all pools or by pool.
#[derive(Clone, Debug, PartialEq)]
pub enum ObservedLatency {
    /// The same for every pool.
    Assumed(LatencyModel),
    /// As measured by an instance.
    Measured(BTreeMap<String, MeasuredPool>),
}

/// Measurements of one pool by an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredPool {
    /// The latency of its endpoints in passing probes, without the network.
    pub latency: LatencyModel,
    /// The round trip to an endpoint.
    pub round_trip: Duration,
    pub probes: u64,
    /// The number of probes without a response in time.
    pub silent: u64,
    /// Whether the pool had an incident: then silent probes do not measure the network.
    pub has_failed: bool,
}

impl From<LatencyModel> for ObservedLatency {
    fn from(latency: LatencyModel) -> Self {
        Self::Assumed(latency)
    }
}

impl ObservedLatency {
    /// The measurements of a pool.
    pub fn measured(&self, pool: &str) -> Option<&MeasuredPool> {
        match self {
            Self::Assumed(_) => None,
            Self::Measured(pools) => pools.get(pool),
        }
    }

    /// The latency of a pool's endpoints; `None` if the pool was not measured.
    pub fn latency(&self, pool: &str) -> Option<&LatencyModel> {
        match self {
            Self::Assumed(latency) => Some(latency),
            Self::Measured(_) => self.measured(pool).map(|measured| &measured.latency),
        }
    }
}

impl MeasuredPool {
    /// The share of a probe's attempts that are lost, estimated from silent probes with this
    /// `timeout`. `None` if no probe was silent or the pool had an incident.
    pub fn probe_loss(&self, timeout: Duration) -> Option<f64> {
        if self.has_failed || self.silent == 0 || self.probes == 0 {
            return None;
        }
        let attempts = (0..).map_while(|index| attempt_after(timeout, index)).count();
        let strike = self.silent as f64 / self.probes as f64;
        Some(strike.powf(1.0 / attempts.max(1) as f64))
    }
}

/// Parses `--observed` and `--latency`: the address of an admin or status listener (`http://…`), a
/// file with its metrics, or anything that [`parse_latency`] accepts.
///
/// # Errors
/// Explains the error, its place, and how to write the value.
pub(in crate::cli) fn parse_observed(given: &str) -> Result<ObservedLatency, String> {
    if given.starts_with("http://") || given.starts_with("https://") {
        let address = given.trim_end_matches('/').trim_end_matches("/metrics");
        let admin: AdminAddress = address.parse().map_err(|_| {
            format!("`{given}` is not an admin listener; write http://127.0.0.1:9900")
        })?;
        let no_answer = |error: std::io::Error| format!("no answer from {given}: {error}");
        let client = AdminClientArguments::with_environment(admin).client().map_err(no_answer)?;
        let answer = client.get("/metrics").map_err(no_answer)?;
        if answer.status != 200 {
            return Err(format!("{given}: {}", answer.body.trim_end()));
        }
        return parse_metrics(&answer.body).ok_or_else(|| no_probes_error(given));
    }
    let is_file = !given.contains('=') && Path::new(given).is_file();
    let text = if is_file { std::fs::read_to_string(given).ok() } else { None };
    match text.filter(|text| text.contains(PROBES_METRIC) || text.contains(PROBE_DURATION_METRIC)) {
        Some(text) => parse_metrics(&text).ok_or_else(|| no_probes_error(given)),
        None => parse_latency(given).map(ObservedLatency::Assumed),
    }
}

fn no_probes_error(given: &str) -> String {
    format!("no probe has passed at {given}; let it run for a while")
}

/// One sample of a page of metrics.
struct MetricLine<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

impl<'a> MetricLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{')?;
        Some(Self { name, labels: labels.strip_suffix('}')?, value: value.parse().ok()? })
    }

    fn label(&self, name: &str) -> Option<&'a str> {
        let quoted =
            |part: &'a str| part.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"');
        self.labels.split(',').find_map(quoted)
    }
}

/// Parses a page of metrics; `None` if it has no passing probe of any pool.
fn parse_metrics(text: &str) -> Option<ObservedLatency> {
    #[derive(Default)]
    struct PoolSamples {
        /// Upper bounds in seconds, each with the cumulative count of probes.
        buckets: Vec<(f64, u64)>,
        probes: u64,
        silent: u64,
        has_failed: bool,
    }
    let mut pools: BTreeMap<String, PoolSamples> = BTreeMap::new();
    for line in text.lines().filter_map(MetricLine::parse) {
        let Some(pool) = line.label("pool") else { continue };
        let seen = pools.entry(pool.to_owned()).or_default();
        match line.name {
            PROBE_DURATION_METRIC => {
                // The last bound is `+Inf`, which parses as a number too.
                let bound = line.label("le").and_then(|bound| bound.parse().ok());
                seen.buckets.extend(bound.map(|bound: f64| (bound, line.value as u64)));
            }
            PROBES_METRIC if line.label("outcome") == Some("void") => {}
            PROBES_METRIC => {
                let is_silent = line.label("outcome") == Some(FailureClass::Silent.as_str());
                seen.probes += line.value as u64;
                seen.silent += if is_silent { line.value as u64 } else { 0 };
            }
            INCIDENTS_METRIC => seen.has_failed |= line.value > 0.0,
            _ => {}
        }
    }
    let measured = pools.into_iter().filter_map(|(pool, seen)| {
        let counts = bucket_counts(seen.buckets);
        let round_trip = counts.iter().find(|(_, count)| *count > 0)?.0 / ROUND_TRIPS_PER_PROBE;
        let network_time = round_trip * NETWORK_ROUND_TRIPS;
        let answers: Vec<(Duration, u64)> = counts
            .into_iter()
            .map(|(took, count)| (took.saturating_sub(network_time), count))
            .collect();
        let latency =
            LatencyModel::Distributed(Arc::new(LatencyDistribution::from_counts(&answers)?));
        let PoolSamples { probes, silent, has_failed, .. } = seen;
        Some((pool, MeasuredPool { latency, round_trip, probes, silent, has_failed }))
    });
    let measured: BTreeMap<String, MeasuredPool> = measured.collect();
    (!measured.is_empty()).then_some(ObservedLatency::Measured(measured))
}

/// Durations with their counts: the samples of a bucket are spread evenly over it, the remainder at
/// its end.
fn bucket_counts(mut buckets: Vec<(f64, u64)>) -> Vec<(Duration, u64)> {
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below_count, mut lower) = (0, Duration::ZERO);
    let bucket = |(bound, count): (f64, u64)| {
        let within = count.saturating_sub(below_count);
        below_count = count;
        let upper = Duration::try_from_secs_f64(bound).unwrap_or(OVERFLOW_BOUND);
        let from = std::mem::replace(&mut lower, upper);
        let (per_step, remainder) =
            (within / u64::from(STEPS_PER_BUCKET), within % u64::from(STEPS_PER_BUCKET));
        let step = move |step: u32| {
            let at = from + upper.saturating_sub(from) * step / STEPS_PER_BUCKET;
            (at, per_step + if step == STEPS_PER_BUCKET { remainder } else { 0 })
        };
        (1..=STEPS_PER_BUCKET).map(step)
    };
    buckets.into_iter().flat_map(bucket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS_PAGE: &str = "\
# TYPE gapless_probes_total counter
gapless_probes_total{pool=\"web\",outcome=\"pass\"} 990
gapless_probes_total{pool=\"web\",outcome=\"silent\"} 10
gapless_probes_total{pool=\"web\",outcome=\"void\"} 7
gapless_probes_total{pool=\"api\",outcome=\"pass\"} 5
gapless_incidents_total{pool=\"api\",zone=\"r/a\",class=\"refused\"} 1
gapless_probe_duration_seconds_bucket{pool=\"web\",le=\"0.001\"} 0
gapless_probe_duration_seconds_bucket{pool=\"web\",le=\"0.0025\"} 900
gapless_probe_duration_seconds_bucket{pool=\"web\",le=\"0.05\"} 990
gapless_probe_duration_seconds_bucket{pool=\"web\",le=\"+Inf\"} 990
gapless_probe_duration_seconds_sum{pool=\"web\"} 2.5
gapless_snapshot_version 3
";

    #[test]
    fn metrics_page_yields_latency_and_silent_probes() {
        let observed = parse_metrics(METRICS_PAGE).expect("a pool");
        let web = observed.measured("web").expect("seen");
        let ms = Duration::from_millis;
        assert_eq!((web.probes, web.silent, web.has_failed), (1_000, 10, false));
        // The fastest took 1.15 ms, two thirds of which are the network.
        assert_eq!(web.round_trip, Duration::from_micros(1_150) / 3);
        assert!((web.latency.share_above(ms(2)) - 90.0 / 990.0).abs() < 1e-9);
        assert!((web.latency.share_above(ms(26)) - 45.0 / 990.0).abs() < 1e-9);
        assert_eq!(web.latency.share_above(ms(50)), 0.0);
        // Two attempts: a tenth of each.
        assert!((web.probe_loss(ms(60)).expect("some") - 0.1).abs() < 1e-9);
        assert_eq!(observed.latency("api"), None);
        assert_eq!(MeasuredPool { has_failed: true, ..web.clone() }.probe_loss(ms(60)), None);
        assert_eq!(parse_metrics("gapless_snapshot_version 3\n"), None);
    }

    #[test]
    fn file_is_read_as_metrics_page_or_histogram() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("observed");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            parse_observed(path.to_str().expect("a plain path"))
        };
        assert!(matches!(read(METRICS_PAGE), Ok(ObservedLatency::Measured(_))));
        assert!(matches!(read("1 50\n2.5 25\n"), Ok(ObservedLatency::Assumed(_))));
        assert!(
            read("gapless_probes_total{pool=\"a\"} 1\n").is_err_and(|why| why.contains("no probe"))
        );
        let assumed = ObservedLatency::Assumed(LatencyModel::Fixed(Duration::from_millis(3)));
        assert_eq!(parse_observed("3ms"), Ok(assumed));
        assert!(parse_observed("http://nowhere").is_err_and(|why| why.contains("admin listener")));
    }
}

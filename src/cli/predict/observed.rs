//! What was observed of pools: said in words, recorded in a file, or asked of a running instance.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::latency::latency;
use crate::cli::{admin_address, ask};
use crate::logic::outcome::Class;
use crate::sim::latency::{Distribution, Latency};
use crate::sim::world::attempt_after;

/// The histogram of what probes took that passed.
const PROBES: &str = "gapless_probe_duration_seconds_bucket";

/// Probes by how they ended.
const OUTCOMES: &str = "gapless_probes_total";

/// Failures that were found.
const INCIDENTS: &str = "gapless_incidents_total";

/// What is above the last bound of a histogram took this long.
const BEYOND: Duration = Duration::from_secs(3_600);

/// What endpoints take to answer, for all pools or each for itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// The same for every pool.
    Told(Latency),
    /// As an instance has measured it.
    Measured(BTreeMap<String, Measured>),
}

/// What an instance has measured of one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// What its probes took that passed: the upper bounds of the histogram's buckets.
    pub latency: Latency,
    /// The shortest of them.
    pub shortest: Duration,
    /// Probes that ended.
    pub probes: u64,
    /// Those of them that got no answer in time.
    pub silent: u64,
    /// Whether anything ever failed: then their silence was not the network's.
    pub has_failed: bool,
}

impl From<Latency> for Observed {
    fn from(latency: Latency) -> Self {
        Self::Told(latency)
    }
}

impl Observed {
    /// What was measured of a pool.
    #[must_use]
    pub fn measured(&self, pool: &str) -> Option<&Measured> {
        match self {
            Self::Told(_) => None,
            Self::Measured(pools) => pools.get(pool),
        }
    }

    /// What endpoints of a pool take to answer; `None` if nothing is known of this one.
    #[must_use]
    pub fn latency(&self, pool: &str) -> Option<&Latency> {
        match self {
            Self::Told(latency) => Some(latency),
            Self::Measured(_) => self.measured(pool).map(|measured| &measured.latency),
        }
    }
}

impl Measured {
    /// The share of a probe's attempts that get no answer, if the silence of probes tells: they had
    /// this timeout, nothing ever failed, and some were silent.
    #[must_use]
    pub fn loss(&self, timeout: Duration) -> Option<f64> {
        if self.has_failed || self.silent == 0 || self.probes == 0 {
            return None;
        }
        let attempts = (0..).map_while(|index| attempt_after(timeout, index)).count();
        let strike = self.silent as f64 / self.probes as f64;
        Some(strike.powf(1.0 / attempts.max(1) as f64))
    }
}

/// Reads `--observed` and `--latency`: the address of an admin listener (`http://…`), a page of
/// metrics that it gave once, or whatever [`latency`] reads.
///
/// # Errors
/// Says what is wrong where, and how to write it.
pub(in crate::cli) fn observed(given: &str) -> Result<Observed, String> {
    if given.starts_with("http://") {
        let address = given.trim_end_matches('/').trim_end_matches("/metrics");
        let admin = admin_address(address).map_err(|_| {
            format!("`{given}` is not an admin listener; write http://127.0.0.1:9900")
        })?;
        let answer = ask::get(admin, "/metrics")
            .map_err(|error| format!("nobody to ask at {admin}: {error}"))?;
        return page(&answer.body).ok_or_else(|| nothing(given));
    }
    let is_file = !given.contains('=') && Path::new(given).is_file();
    let text = if is_file { std::fs::read_to_string(given).ok() } else { None };
    match text.filter(|text| text.contains(OUTCOMES) || text.contains(PROBES)) {
        Some(text) => page(&text).ok_or_else(|| nothing(given)),
        None => latency(given).map(Observed::Told),
    }
}

fn nothing(given: &str) -> String {
    format!("no probe has passed at {given}; let it run for a while")
}

/// One line of a page of metrics: its name, its labels and its value.
struct Line<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Option<Self> {
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

/// Reads a page of metrics; `None` if no probe of any pool is on it.
fn page(text: &str) -> Option<Observed> {
    #[derive(Default)]
    struct Seen {
        /// Probes that took at most so many seconds.
        at_most: Vec<(f64, u64)>,
        probes: u64,
        silent: u64,
        has_failed: bool,
    }
    let mut pools: BTreeMap<String, Seen> = BTreeMap::new();
    for line in text.lines().filter_map(Line::read) {
        let Some(pool) = line.label("pool") else { continue };
        let seen = pools.entry(pool.to_owned()).or_default();
        match line.name {
            PROBES => {
                // The bound above all others is `+Inf`, which is a number too.
                let bound = line.label("le").and_then(|bound| bound.parse().ok());
                seen.at_most.extend(bound.map(|bound: f64| (bound, line.value as u64)));
            }
            OUTCOMES if line.label("outcome") == Some("void") => {}
            OUTCOMES => {
                let is_silent = line.label("outcome") == Some(Class::Silent.as_str());
                seen.probes += line.value as u64;
                seen.silent += if is_silent { line.value as u64 } else { 0 };
            }
            INCIDENTS => seen.has_failed |= line.value > 0.0,
            _ => {}
        }
    }
    let measured = pools.into_iter().filter_map(|(pool, seen)| {
        let counts = counts(seen.at_most);
        let shortest = counts.iter().find(|(_, count)| *count > 0)?.0;
        let latency = Latency::Drawn(Arc::new(Distribution::counted(&counts)?));
        let Seen { probes, silent, has_failed, .. } = seen;
        Some((pool, Measured { latency, shortest, probes, silent, has_failed }))
    });
    let measured: BTreeMap<String, Measured> = measured.collect();
    (!measured.is_empty()).then_some(Observed::Measured(measured))
}

/// How many are in each bucket, by its upper bound.
fn counts(mut at_most: Vec<(f64, u64)>) -> Vec<(Duration, u64)> {
    at_most.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut below = 0;
    let bucket = |(bound, count): (f64, u64)| {
        let within = count.saturating_sub(below);
        below = count;
        (Duration::try_from_secs_f64(bound).unwrap_or(BEYOND), within)
    };
    at_most.into_iter().map(bucket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
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
    fn a_page_of_metrics_tells_what_probes_took_and_how_many_were_silent() {
        let observed = page(PAGE).expect("a pool");
        let web = observed.measured("web").expect("seen");
        let ms = Duration::from_millis;
        assert_eq!((web.probes, web.silent, web.has_failed), (1_000, 10, false));
        assert_eq!(web.shortest, Duration::from_micros(2_500));
        assert!((web.latency.beyond(ms(10)) - 90.0 / 990.0).abs() < 1e-9);
        assert_eq!(web.latency.beyond(ms(50)), 0.0);
        // Two attempts: a tenth of each.
        assert!((web.loss(ms(60)).expect("some") - 0.1).abs() < 1e-9);
        assert_eq!(observed.latency("api"), None);
        assert_eq!(Measured { has_failed: true, ..web.clone() }.loss(ms(60)), None);
        assert_eq!(page("gapless_snapshot_version 3\n"), None);
    }

    #[test]
    fn a_file_may_be_a_page_of_metrics_or_a_histogram() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("observed");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            observed(path.to_str().expect("a plain path"))
        };
        assert!(matches!(read(PAGE), Ok(Observed::Measured(_))));
        assert!(matches!(read("1 50\n2.5 25\n"), Ok(Observed::Told(_))));
        assert!(
            read("gapless_probes_total{pool=\"a\"} 1\n").is_err_and(|why| why.contains("no probe"))
        );
        let told = Observed::Told(Latency::Fixed(Duration::from_millis(3)));
        assert_eq!(observed("3ms"), Ok(told));
        assert!(observed("http://nowhere").is_err_and(|why| why.contains("admin listener")));
    }
}

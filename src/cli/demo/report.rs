//! What the demo found: predicted against measured.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::app::observe::millis;
use crate::config::model::Config;
use crate::sim::latency::Latency;
use crate::sim::predict::{self, Question, Scope, Spread, Window};

use super::fleet::Fleet;
use super::load::Sample;
use super::{Fault, Options, ZONE};

/// Trials of the prediction.
const TRIALS: u32 = 500;

/// A good answer later than this is counted.
const LATE: Duration = Duration::from_millis(250);

/// When the zone failed and when it was healed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    pub(super) failed: Instant,
    pub(super) healed: Instant,
}

/// The result.
#[derive(Debug)]
pub(super) struct Report {
    fault: Fault,
    prediction: Spread,
    detection: Option<Duration>,
    gap: Duration,
    restored: Option<Duration>,
    requests: Requests,
}

#[derive(Debug, Default)]
struct Requests {
    sent: usize,
    failed_get: usize,
    failed_post: usize,
    rescued: usize,
    late: usize,
}

impl Report {
    pub(super) fn new(
        options: Options,
        prediction: Spread,
        moments: Moments,
        samples: &[Sample],
        fleet: &Fleet,
        incidents: &str,
    ) -> Self {
        let count =
            |of: &dyn Fn(&Sample) -> bool| samples.iter().filter(|sample| of(sample)).count();
        let requests = Requests {
            sent: samples.len(),
            failed_get: count(&|sample| !sample.is_good && !sample.is_post),
            failed_post: count(&|sample| !sample.is_good && sample.is_post),
            rescued: count(&|sample| sample.is_good && sample.is_resent),
            late: count(&|sample| sample.is_good && sample.latency > LATE),
        };
        let seen =
            samples.iter().filter(|sample| !sample.is_good && sample.ended >= moments.failed);
        let last_failure = seen.map(|sample| sample.ended).max();
        let from_zone = |sample: &&Sample| {
            sample.is_good
                && sample.endpoint.as_deref().and_then(|e| fleet.zone_of(e)) == Some(ZONE)
        };
        let back = samples.iter().filter(|sample| sample.ended > moments.healed).filter(from_zone);
        let first_back = back.map(|sample| sample.ended).min();
        Self {
            fault: options.fault,
            prediction,
            detection: last_verdict(incidents, moments.failed),
            gap: last_failure
                .map_or(Duration::ZERO, |last| last.saturating_duration_since(moments.failed)),
            restored: first_back.map(|first| first.saturating_duration_since(moments.healed)),
            requests,
        }
    }

    /// Whether the zone got its verdict at all.
    pub(super) fn was_detected(&self) -> bool {
        self.detection.is_some()
    }

    /// The table at the end.
    pub(super) fn text(&self) -> String {
        let ms = |duration: Duration| format!("{:.1} ms", millis(duration));
        let optional =
            |duration: Option<Duration>| duration.map_or_else(|| "not seen".to_owned(), ms);
        let Spread { median, p99, worst, .. } = self.prediction;
        let verdict = match self.detection {
            Some(detection) if detection <= worst => "inside what was predicted",
            Some(_) => "OUTSIDE what was predicted",
            None => "no verdict",
        };
        let Requests { sent, failed_get, failed_post, rescued, late } = self.requests;
        let rows = [
            ("fault", format!("{} in the whole zone {ZONE}", self.fault.as_str())),
            (
                "predicted window",
                format!("median {}, p99 {}, worst {}", ms(median), ms(p99), ms(worst)),
            ),
            ("measured window", format!("{}   ({verdict})", optional(self.detection))),
            (
                "measured gap",
                format!("{}   (onset to the last failure that a client saw)", ms(self.gap)),
            ),
            (
                "return",
                format!("{}   (healed to the first answer from the zone)", optional(self.restored)),
            ),
            ("requests", format!("{sent} sent, {rescued} rescued, {late} good but late")),
            ("failed", format!("{failed_get} GET, {failed_post} POST")),
        ];
        rows.iter().map(|(name, value)| format!("  {name:<17} {value}\n")).collect()
    }

    /// The same as one object.
    pub(super) fn json(&self) -> Value {
        let optional = |duration: Option<Duration>| duration.map(millis);
        json!({
            "fault": self.fault.as_str(),
            "scope": "zone",
            "zone": ZONE,
            "predicted": {
                "best_ms": millis(self.prediction.best),
                "median_ms": millis(self.prediction.median),
                "p99_ms": millis(self.prediction.p99),
                "worst_ms": millis(self.prediction.worst),
            },
            "measured": {
                "detection_ms": optional(self.detection),
                "gap_ms": millis(self.gap),
                "return_ms": optional(self.restored),
            },
            "requests": {
                "sent": self.requests.sent,
                "failed_get": self.requests.failed_get,
                "failed_post": self.requests.failed_post,
                "rescued": self.requests.rescued,
                "late": self.requests.late,
            },
        })
    }
}

/// From the onset, which the demo knows, to the verdict on the last endpoint of the zone.
fn last_verdict(incidents: &str, failed: Instant) -> Option<Duration> {
    let incidents: Value = serde_json::from_str(incidents).ok()?;
    let all = incidents["endpoints"].as_array()?;
    let onset = jiff::Timestamp::try_from(SystemTime::now() - failed.elapsed()).ok()?;
    let verdicts = all.iter().filter(|incident| incident["zone"] == ZONE).filter_map(|incident| {
        let verdict: jiff::Timestamp = incident["timeline"]["verdict"].as_str()?.parse().ok()?;
        let microseconds = verdict.as_microsecond() - onset.as_microsecond();
        u64::try_from(microseconds).ok().map(Duration::from_micros)
    });
    let verdicts: Vec<Duration> = verdicts.collect();
    // Three endpoints to a zone; a verdict that is missing is no detection of the zone.
    (verdicts.len() >= 3).then(|| verdicts.into_iter().max()).flatten()
}

/// What the simulator says of this fault in a whole zone under this traffic, where a round trip
/// takes as long as the slowest of the latest probes.
///
/// # Errors
/// If the simulator says that this fault is never noticed.
pub(super) fn predict(config: &Config, options: Options, endpoints: &str) -> io::Result<Spread> {
    let unseen = || io::Error::other("no verdict is predicted for this fault");
    let pool = config.topology.pools.first().ok_or_else(unseen)?;
    let question = Question {
        trials: TRIALS,
        seed: 1,
        round_trip: slowest_probe(endpoints).max(Duration::from_millis(1)),
        rate_rps: Some(f64::from(options.rate)),
        latency: Latency::Fixed(predict::SERVICE),
        threads: crate::cli::predict::threads(),
    };
    let here = config.topology.here.as_ref();
    let asked = (Scope::Zone, options.fault.predicted());
    match predict::predict_one(pool, here, &question, asked, Instant::now()).window {
        Window::Seen { spread, .. } => Ok(spread),
        Window::Unseen(_) => Err(unseen()),
    }
}

fn slowest_probe(endpoints: &str) -> Duration {
    let status: Value = serde_json::from_str(endpoints).unwrap_or_default();
    let all = status["endpoints"].as_array().into_iter().flatten();
    let probes = all.flat_map(|endpoint| endpoint["probes"].as_array().into_iter().flatten());
    let slowest = probes.filter_map(|probe| probe["latency_ms"].as_f64()).fold(0.0, f64::max);
    Duration::from_secs_f64(slowest / 1e3)
}

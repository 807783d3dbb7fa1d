//! The result of the demo: predicted and measured figures.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::app::ops::event_log::millis;
use crate::app::runtime::scheduling_delay;
use crate::config::model::Config;
use crate::sim::latency::LatencyModel;
use crate::sim::predict::{
    self, FaultCase, FaultScope, PredictedWindow, PredictionInput, WindowSpread,
};

use super::fleet::{EndpointFleet, FaultOnset};
use super::load_generator::RequestSample;
use super::{DemoFault, DemoOptions, FAILED_ZONE};

/// The number of trials of the prediction.
const PREDICTION_TRIALS: u32 = 500;

/// Slower successful responses count as late.
const LATE_THRESHOLD: Duration = Duration::from_millis(250);

/// The excess over the prediction that is tolerated: the simulation models neither the scheduler
/// nor the load generator.
const DETECTION_TOLERANCE: Duration = Duration::from_millis(10);

/// The times of the fault and of the recovery.
#[derive(Clone, Debug)]
pub(super) struct FaultTimes {
    pub(super) onset: FaultOnset,
    pub(super) restored_at: Instant,
    /// Samples of the scheduling delay of this process during the fault.
    pub(super) delays: Vec<(Instant, Duration)>,
}

#[derive(Debug)]
pub(super) struct DemoReport {
    fault: DemoFault,
    prediction: WindowSpread,
    /// From the earliest onset to the verdict on the zone.
    detection: Option<Duration>,
    /// The interval in which the endpoints were made to fail.
    onset_uncertainty: Duration,
    /// The scheduling delay of this process between onset and verdict.
    lateness: Duration,
    failover_gap: Duration,
    return_time: Option<Duration>,
    requests: RequestCounts,
}

/// The measured window, compared with the predicted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DetectionJudgement {
    /// At most the tolerance beyond the slowest trial.
    Inside,
    /// Beyond it by no more than the scheduling delay of this process.
    LateMachine,
    Outside,
    NoVerdict,
}

impl DetectionJudgement {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::LateMachine => "late_machine",
            Self::Outside => "outside",
            Self::NoVerdict => "no_verdict",
        }
    }
}

#[derive(Debug, Default)]
struct RequestCounts {
    sent: usize,
    failed_get: usize,
    failed_post: usize,
    rescued: usize,
    late_count: usize,
}

impl DemoReport {
    pub(super) fn new(
        options: DemoOptions,
        prediction: WindowSpread,
        fault_times: &FaultTimes,
        samples: &[RequestSample],
        fleet: &EndpointFleet,
        incidents: &str,
    ) -> Self {
        let FaultOnset { earliest, latest } = fault_times.onset;
        let count = |of: &dyn Fn(&RequestSample) -> bool| {
            samples.iter().filter(|sample| of(sample)).count()
        };
        let requests = RequestCounts {
            sent: samples.len(),
            failed_get: count(&|sample| !sample.is_success && !sample.is_post),
            failed_post: count(&|sample| !sample.is_success && sample.is_post),
            rescued: count(&|sample| sample.is_success && sample.is_retried),
            late_count: count(&|sample| sample.is_success && sample.latency > LATE_THRESHOLD),
        };
        let failures =
            samples.iter().filter(|sample| !sample.is_success && sample.ended >= earliest);
        let last_failure = failures.map(|sample| sample.ended).max();
        let detection = zone_verdict(incidents, earliest);
        let lateness = detection.map_or(Duration::ZERO, |detection| {
            scheduling_delay::delay_between(&fault_times.delays, earliest, earliest + detection)
        });
        let from_zone = |sample: &&RequestSample| {
            sample.is_success
                && sample.endpoint.as_deref().and_then(|e| fleet.zone_of(e)) == Some(FAILED_ZONE)
        };
        let zone_successes = samples
            .iter()
            .filter(|sample| sample.ended > fault_times.restored_at)
            .filter(from_zone);
        let first_back = zone_successes.map(|sample| sample.ended).min();
        Self {
            fault: options.fault,
            prediction,
            detection,
            onset_uncertainty: latest.saturating_duration_since(earliest),
            lateness,
            failover_gap: last_failure
                .map_or(Duration::ZERO, |last| last.saturating_duration_since(earliest)),
            return_time: first_back
                .map(|first| first.saturating_duration_since(fault_times.restored_at)),
            requests,
        }
    }

    /// Whether the zone got its verdict.
    pub(super) fn is_detected(&self) -> bool {
        self.detection.is_some()
    }

    /// The detection time if the endpoints failed at the end of the onset interval.
    fn least_detection(&self, detection: Duration) -> Duration {
        detection.saturating_sub(self.onset_uncertainty)
    }

    fn judge(&self) -> DetectionJudgement {
        let Some(detection) = self.detection else { return DetectionJudgement::NoVerdict };
        let limit = self.prediction.worst + DETECTION_TOLERANCE;
        match self.least_detection(detection).saturating_sub(limit) {
            Duration::ZERO => DetectionJudgement::Inside,
            excess if excess <= self.lateness => DetectionJudgement::LateMachine,
            _ => DetectionJudgement::Outside,
        }
    }

    /// The result as a table.
    pub(super) fn text(&self) -> String {
        let ms = |duration: Duration| format!("{:.1} ms", millis(duration));
        let optional =
            |duration: Option<Duration>| duration.map_or_else(|| "not seen".to_owned(), ms);
        let WindowSpread { median, p99, worst, .. } = self.prediction;
        let measured = match self.detection {
            Some(detection) => {
                format!("{} to {}", ms(self.least_detection(detection)), ms(detection))
            }
            None => "not seen".to_owned(),
        };
        let verdict = match self.judge() {
            DetectionJudgement::Inside => "inside what was predicted".to_owned(),
            DetectionJudgement::LateMachine => {
                format!("this machine was late by up to {}", ms(self.lateness))
            }
            DetectionJudgement::Outside => "OUTSIDE what was predicted".to_owned(),
            DetectionJudgement::NoVerdict => "no verdict".to_owned(),
        };
        let RequestCounts { sent, failed_get, failed_post, rescued, late_count: late } =
            self.requests;
        let rows = [
            ("fault", format!("{} in the whole zone {FAILED_ZONE}", self.fault.as_str())),
            (
                "predicted window",
                format!("median {}, p99 {}, worst {}", ms(median), ms(p99), ms(worst)),
            ),
            ("measured window", format!("{measured}   ({verdict})")),
            (
                "measured gap",
                format!(
                    "{}   (onset to the last failure that a client saw)",
                    ms(self.failover_gap)
                ),
            ),
            (
                "return",
                format!(
                    "{}   (healed to the first answer from the zone)",
                    optional(self.return_time)
                ),
            ),
            ("requests", format!("{sent} sent, {rescued} rescued, {late} good but late")),
            ("failed", format!("{failed_get} GET, {failed_post} POST")),
        ];
        rows.iter().map(|(name, value)| format!("  {name:<17} {value}\n")).collect()
    }

    /// The result as JSON.
    pub(super) fn json(&self) -> Value {
        let optional = |duration: Option<Duration>| duration.map(millis);
        json!({
            "fault": self.fault.as_str(),
            "scope": "zone",
            "zone": FAILED_ZONE,
            "predicted": {
                "best_ms": millis(self.prediction.best),
                "median_ms": millis(self.prediction.median),
                "p99_ms": millis(self.prediction.p99),
                "worst_ms": millis(self.prediction.worst),
            },
            "measured": {
                "detection_ms": optional(self.detection),
                "onset_uncertainty_ms": millis(self.onset_uncertainty),
                "lateness_ms": millis(self.lateness),
                "judgement": self.judge().as_str(),
                "gap_ms": millis(self.failover_gap),
                "return_ms": optional(self.return_time),
            },
            "requests": {
                "sent": self.requests.sent,
                "failed_get": self.requests.failed_get,
                "failed_post": self.requests.failed_post,
                "rescued": self.requests.rescued,
                "late": self.requests.late_count,
            },
        })
    }
}

/// Time from the onset until no endpoint of the zone was in service, from the ledger.
fn zone_verdict(incidents: &str, failed: Instant) -> Option<Duration> {
    let incidents: Value = serde_json::from_str(incidents).ok()?;
    let onset = jiff::Timestamp::try_from(SystemTime::now() - failed.elapsed()).ok()?;
    let zones = incidents["zones"].as_array()?;
    let of_zone = zones.iter().filter(|incident| incident["zone"] == FAILED_ZONE);
    let since_onset = |incident: &Value| {
        let verdict: jiff::Timestamp = incident["timeline"]["verdict"].as_str()?.parse().ok()?;
        let microseconds = verdict.as_microsecond() - onset.as_microsecond();
        u64::try_from(microseconds).ok().map(Duration::from_micros)
    };
    of_zone.filter_map(since_onset).min()
}

/// Predicts the detection window of this fault in a whole zone under this traffic. The round trip
/// is the duration of the slowest latest probe.
///
/// # Errors
/// If the predicted result is that the fault is never detected.
pub(super) fn predict(
    config: &Config,
    options: DemoOptions,
    endpoints: &str,
) -> io::Result<WindowSpread> {
    let unseen = || io::Error::other("no verdict is predicted for this fault");
    let pool = config.topology.pools.first().ok_or_else(unseen)?;
    let question = PredictionInput {
        trials: PREDICTION_TRIALS,
        seed: 1,
        round_trip: slowest_probe(endpoints).max(Duration::from_millis(1)),
        rate_rps: Some(f64::from(options.rate)),
        warm_up: None,
        latency: LatencyModel::Fixed(predict::DEFAULT_SERVICE_TIME),
        workers: config.workers,
        threads: crate::cli::predict::thread_count(),
    };
    let here = config.topology.local.as_ref();
    let case = FaultCase { scope: FaultScope::Zone, fault: options.fault.simulated_fault() };
    match predict::predict_row(pool, here, &question, case, Instant::now()).window {
        PredictedWindow::Detected { spread, .. } => Ok(spread),
        PredictedWindow::Undetected(_) => Err(unseen()),
    }
}

fn slowest_probe(endpoints: &str) -> Duration {
    let status: Value = serde_json::from_str(endpoints).unwrap_or_default();
    let all = status["endpoints"].as_array().into_iter().flatten();
    let probes = all.flat_map(|endpoint| endpoint["probes"].as_array().into_iter().flatten());
    let slowest = probes.filter_map(|probe| probe["latency_ms"].as_f64()).fold(0.0, f64::max);
    Duration::from_secs_f64(slowest / 1e3)
}

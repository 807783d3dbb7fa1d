//! How long a failure stays undetected: a pool's detection window for every kind of failure, from
//! simulation, with the closed form beside it. And how often a healthy endpoint gets a verdict.

pub mod false_positives;
mod fault;
mod pool_sample;
#[cfg(test)]
mod tests;

pub use fault::FaultKind;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::model::id::Locality;
use crate::logic::model::topology::{PoolSpec, Topology};
use crate::logic::probing::detection_window;
use crate::logic::probing::detection_window::DetectionBounds;

use super::latency::LatencyModel;
use super::parallel;
use super::world::{EndpointBehavior, ProbeFinding, ProbeResponse, SimulationSettings};
use pool_sample::{FaultOnset, PoolSample, TrialResult};

/// Trials of each fault and scope by default.
pub const DEFAULT_TRIALS: u32 = 1_000;

/// The budget of director turns for all trials of one fault and scope. A trial with very many turns
/// (hundreds of strikes in a row, or much traffic that does not meet the fault) leaves fewer
/// trials.
const MAX_STEPS: u64 = 200_000;

/// The minimum number of trials for a tail.
const MIN_TRIALS: u32 = 50;

/// If none of so many trials ends with a verdict (or of those within the budget), none will.
const MAX_UNDETECTED_TRIALS: u32 = 10;

/// The latency of a healthy endpoint by default.
pub const DEFAULT_SERVICE_TIME: Duration = Duration::from_millis(1);

/// The time limit for faults that only traffic can detect.
const TRAFFIC_DETECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// The input of [`predict`].
#[derive(Clone, Debug)]
pub struct PredictionInput {
    /// Trials of each fault and scope.
    pub trials: u32,
    /// Equal seeds give equal predictions.
    pub seed: u64,
    /// The round trip to an endpoint.
    pub round_trip: Duration,
    /// Requests per second over the whole pool: rows with traffic are added to those without.
    pub rate_rps: Option<f64>,
    /// The latency of healthy endpoints.
    pub latency: LatencyModel,
    /// The number of simulations that may run in parallel. The result does not depend on it.
    pub threads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultScope {
    Endpoint,
    /// A whole zone: the window ends with the verdict on its last endpoint.
    Zone,
}

impl FaultScope {
    /// The word in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Zone => "zone",
        }
    }
}

/// The prediction for one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    pub pool: Arc<str>,
    /// The failing zone, or the zone of the failing endpoint: the largest of the first tier.
    pub zone: Locality,
    pub zone_endpoints: usize,
    /// In the order of traffic, scope and fault.
    pub rows: Vec<PredictionRow>,
}

/// The prediction for one kind of failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PredictionRow {
    pub scope: FaultScope,
    pub fault: FaultKind,
    /// Requests per second over the pool; `None` means active probes alone.
    pub traffic_rps: Option<f64>,
    /// From onset to verdict.
    pub window: PredictedWindow,
    /// The sum of the configuration's periods, for active probes alone, if they detect the fault.
    pub closed_form: Option<DetectionBounds>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are seen, and there are few")]
pub enum PredictedWindow {
    Detected {
        /// The distribution over the trials.
        spread: WindowSpread,
        /// Whether it lies within the closed form. That form holds for active probes alone, and for
        /// a fixed latency.
        within_closed_form: Option<bool>,
    },
    Undetected(UndetectedReason),
}

/// The number of steps of [`WindowSpread::quantiles`].
pub const QUANTILES: usize = 20;

/// The distribution of the detection window over the trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSpread {
    pub best: Duration,
    /// At most this in half of the trials.
    pub median: Duration,
    /// At most this in 99 % of the trials.
    pub p99: Duration,
    pub worst: Duration,
    /// Each twentieth, from the minimum to the maximum.
    pub quantiles: [Duration; QUANTILES + 1],
    /// The number of trials.
    pub trials: u32,
    /// The trials without a verdict at the time limit; they count as having taken that long.
    pub undetected_trials: u32,
}

/// Why a failure is never detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UndetectedReason {
    /// The pool's probe passes all the same; another probe would not.
    ProbePasses,
    /// No probe can detect it: only requests meet it.
    NeedsTraffic,
    /// Requests meet it, and no verdict follows within the time limit.
    NoVerdict,
    /// The probe's timeout is shorter than the latency: no endpoint is ever up.
    NeverUp,
}

/// Predicts one pool. `local_zone` is the zone of this instance, `base` any instant.
pub fn predict(
    pool: &PoolSpec,
    local_zone: Option<&Locality>,
    question: &PredictionInput,
    base: Instant,
) -> Prediction {
    let topology = single_pool_topology(pool, local_zone);
    let rates = std::iter::once(None).chain(question.rate_rps.map(Some));
    let samples: Vec<_> =
        rates.map(|rate| (rate, PoolSample::from_topology(&topology, rate))).collect();
    let faults =
        || FaultKind::ALL.into_iter().filter(|fault| fault.is_applicable_to(pool.primary_probe()));
    let mut fault_trials = Vec::new();
    for (rate_rps, sample) in &samples {
        for scope in [FaultScope::Endpoint, FaultScope::Zone] {
            fault_trials.extend(faults().map(|fault| {
                (*rate_rps, FaultTrial { pool, sample, question, scope, fault, base })
            }));
        }
    }
    let rows = parallel::parallel_map(&fault_trials, question.threads, |(rate_rps, trial)| {
        trial.predict_row(*rate_rps)
    });
    let zone = &pool.zones[pool_sample::default_failing_zone(pool, local_zone)];
    Prediction {
        pool: Arc::clone(&pool.name),
        zone: zone.locality.clone(),
        zone_endpoints: zone.endpoints.len(),
        rows,
    }
}

/// One row of [`predict`], with the traffic of `question` if it has any.
pub fn predict_row(
    pool: &PoolSpec,
    local_zone: Option<&Locality>,
    question: &PredictionInput,
    (scope, fault): (FaultScope, FaultKind),
    base: Instant,
) -> PredictionRow {
    let sample =
        PoolSample::from_topology(&single_pool_topology(pool, local_zone), question.rate_rps);
    FaultTrial { pool, sample: &sample, question, scope, fault, base }
        .predict_row(question.rate_rps)
}

/// The same for the zone with this index in the pool's list.
pub fn predict_zone_row(
    pool: &PoolSpec,
    local_zone: Option<&Locality>,
    question: &PredictionInput,
    (zone, scope, fault): (usize, FaultScope, FaultKind),
    base: Instant,
) -> PredictionRow {
    let sample = PoolSample::with_failing_zone(
        &single_pool_topology(pool, local_zone),
        zone,
        question.rate_rps,
    );
    FaultTrial { pool, sample: &sample, question, scope, fault, base }
        .predict_row(question.rate_rps)
}

/// The closed form for this fault and scope, by active probes alone, without a simulation. `None`
/// where no probe detects it.
pub fn closed_form(
    pool: &PoolSpec,
    round_trip: Duration,
    (scope, fault): (FaultScope, FaultKind),
) -> Option<DetectionBounds> {
    let cost = probe_cost(pool, fault, round_trip, DEFAULT_SERVICE_TIME)?;
    Some(closed_form_bounds(pool, (scope, fault), (cost, cost)))
}

/// The time that a probe of this pool takes to detect the fault. `service` is the latency of a good
/// answer. `None` if no probe detects it.
fn probe_cost(
    pool: &PoolSpec,
    fault: FaultKind,
    round_trip: Duration,
    service: Duration,
) -> Option<Duration> {
    let timeout = pool.detect.timeout;
    match fault.behavior().probe_response(pool.primary_probe(), service) {
        ProbeResponse::Answer { round_trips, service_time: service, finding } => {
            let cost = round_trip * round_trips + service;
            (matches!(finding, ProbeFinding::Fail(_)) || cost > timeout)
                .then_some(cost.min(timeout))
        }
        ProbeResponse::Silence(_) => Some(timeout),
    }
}

/// The closed form for probe costs between `least` and `most`.
fn closed_form_bounds(
    pool: &PoolSpec,
    (scope, fault): (FaultScope, FaultKind),
    (least, most): (Duration, Duration),
) -> DetectionBounds {
    let of = |cost| detection_window::detection_bounds(fault.class(), &pool.detect, cost);
    let worst = of(most).worst;
    if scope == FaultScope::Zone && has_zone_verdict(pool, fault) {
        // The first strikes of enough of its endpoints are the zone's verdict.
        return DetectionBounds { best: least, worst };
    }
    DetectionBounds { best: of(least).best, worst }
}

/// Why no probe of this pool detects this fault; `None` if one does. `base` is any instant.
pub fn undetected_by_probes(
    pool: &PoolSpec,
    question: &PredictionInput,
    fault: FaultKind,
    base: Instant,
) -> Option<UndetectedReason> {
    let sample = PoolSample::from_topology(&single_pool_topology(pool, None), None);
    FaultTrial { pool, sample: &sample, question, scope: FaultScope::Endpoint, fault, base }
        .undetected_reason(false)
}

/// Whether this fault of a whole zone makes a zone verdict before each endpoint has its own, by
/// active probes alone.
pub fn has_zone_verdict(pool: &PoolSpec, fault: FaultKind) -> bool {
    let is_connection_fault = matches!(
        fault,
        FaultKind::Refused
            | FaultKind::Reset
            | FaultKind::Hang
            | FaultKind::BlackHole
            | FaultKind::Slow { .. }
    );
    pool.correlation.quorum_percent <= 100 && is_connection_fault
}

/// A topology of this pool only: pools are independent.
fn single_pool_topology(pool: &PoolSpec, local_zone: Option<&Locality>) -> Topology {
    Topology {
        local: local_zone.cloned(),
        pools: vec![Arc::new(pool.clone())],
        ..Topology::default()
    }
}

/// The trials of one kind of failure.
struct FaultTrial<'a> {
    pool: &'a PoolSpec,
    sample: &'a PoolSample,
    question: &'a PredictionInput,
    scope: FaultScope,
    fault: FaultKind,
    base: Instant,
}

impl FaultTrial<'_> {
    fn predict_row(&self, traffic_rps: Option<f64>) -> PredictionRow {
        let closed_form = self.is_visible_to_probes().then(|| self.closed_form(1.0));
        let window = self.predict_window(traffic_rps.is_some());
        PredictionRow { scope: self.scope, fault: self.fault, traffic_rps, window, closed_form }
    }

    fn settings(&self) -> SimulationSettings {
        let round_trip = self.question.round_trip;
        SimulationSettings {
            round_trip,
            latency: self.question.latency.clone(),
            ..SimulationSettings::default()
        }
    }

    fn is_visible_to_probes(&self) -> bool {
        self.probe_cost(1.0, self.question.latency.upper_quantile(0.5)).is_some()
    }

    fn probe_cost(&self, jitter_factor: f64, service: Duration) -> Option<Duration> {
        let round_trip = self.question.round_trip.mul_f64(jitter_factor);
        probe_cost(self.pool, self.fault, round_trip, service)
    }

    fn closed_form(&self, jitter_factor: f64) -> DetectionBounds {
        // The shortest latency bounds the best case, the longest one the worst case.
        let cost = |exceeded_by: f64| {
            let service = self.question.latency.upper_quantile(exceeded_by);
            self.probe_cost(jitter_factor, service).unwrap_or(self.question.round_trip)
        };
        closed_form_bounds(self.pool, (self.scope, self.fault), (cost(1.0), cost(0.0)))
    }

    fn has_zone_verdict(&self, with_traffic: bool) -> bool {
        has_zone_verdict(self.pool, self.fault)
            || with_traffic
                && self.fault.is_visible_to_traffic()
                && self.pool.correlation.quorum_percent <= 100
    }

    /// Why it is certain beforehand that the fault is never detected, if it is.
    fn undetected_reason(&self, with_traffic: bool) -> Option<UndetectedReason> {
        if !self.can_pass_probe() {
            return Some(UndetectedReason::NeverUp);
        }
        let is_seen_by_traffic = with_traffic && self.fault.is_visible_to_traffic();
        if self.is_visible_to_probes() || is_seen_by_traffic {
            return None;
        }
        let needs_traffic = self.fault.is_invisible_to_probes();
        Some(if needs_traffic {
            UndetectedReason::NeedsTraffic
        } else {
            UndetectedReason::ProbePasses
        })
    }

    fn predict_window(&self, with_traffic: bool) -> PredictedWindow {
        if let Some(why) = self.undetected_reason(with_traffic) {
            return PredictedWindow::Undetected(why);
        }
        let timeout = if self.is_visible_to_probes() {
            2 * self.closed_form(2.0).worst + Duration::from_secs(1)
        } else {
            TRAFFIC_DETECTION_TIMEOUT
        };
        let is_per_endpoint = !self.has_zone_verdict(with_traffic);
        match self.window_spread(&self.run_trials(timeout), timeout, is_per_endpoint) {
            None => PredictedWindow::Undetected(UndetectedReason::NoVerdict),
            Some(spread) => {
                let is_bounded =
                    !with_traffic && matches!(self.question.latency, LatencyModel::Fixed(_));
                let within_closed_form = is_bounded.then(|| self.is_within_closed_form(&spread));
                PredictedWindow::Detected { spread, within_closed_form }
            }
        }
    }

    /// Whether the usual latency is short enough for the probe.
    fn can_pass_probe(&self) -> bool {
        let usual = self.question.latency.upper_quantile(0.5);
        let healthy = EndpointBehavior::Healthy { latency: LatencyModel::Fixed(usual) };
        let meeting = healthy.probe_response(self.pool.primary_probe(), usual);
        let ProbeResponse::Answer { round_trips, service_time: service, .. } = meeting else {
            return false;
        };
        let jitter = self.settings().round_trip_jitter;
        let longest = self.question.round_trip.mul_f64(1.0 + jitter) * round_trips;
        longest + service <= self.pool.detect.timeout
    }

    /// The time that each trial took; `None` if it exceeded `timeout`.
    fn run_trials(&self, timeout: Duration) -> Vec<Option<Duration>> {
        let mut rng = Rng::with_seed(self.question.seed);
        let mut steps = 0;
        let mut detection_times = Vec::new();
        for trial in 0..self.question.trials.max(1) {
            let is_over_budget = steps > MAX_STEPS && trial >= MIN_TRIALS;
            let is_hopeless = steps > MAX_STEPS || trial >= MAX_UNDETECTED_TRIALS;
            if is_over_budget || is_hopeless && detection_times.iter().all(Option::is_none) {
                break;
            }
            let ended = self.run_trial(timeout, &mut rng);
            steps += ended.steps;
            detection_times.push(ended.detection_time);
        }
        detection_times
    }

    /// One trial in a simulation of its own, warmed up; the failure begins at a random phase.
    fn run_trial(&self, timeout: Duration, rng: &mut Rng) -> TrialResult {
        let settings = SimulationSettings { seed: rng.u64(..), ..self.settings() };
        let failure = FaultOnset {
            scope: self.scope,
            fault: self.fault,
            phase: self.pool.detect.interval.mul_f64(rng.f64()),
            timeout,
        };
        self.sample.run_trial(settings, self.base, &failure, rng)
    }

    /// Scales the quantiles of the sample to the whole zone. Where each endpoint gets its own
    /// verdict, the last of n is the last of n/k groups of k, and the distribution is a power of
    /// the sample's. Where the zone gets one verdict, the distribution is the sample's. `None` if
    /// most trials ended without a verdict.
    fn window_spread(
        &self,
        detection_times: &[Option<Duration>],
        timeout: Duration,
        is_per_endpoint: bool,
    ) -> Option<WindowSpread> {
        let undetected_trials = detection_times.iter().filter(|took| took.is_none()).count();
        if 2 * undetected_trials > detection_times.len() {
            return None;
        }
        let mut sorted: Vec<Duration> =
            detection_times.iter().map(|took| took.unwrap_or(timeout)).collect();
        sorted.sort_unstable();
        let groups = match self.scope {
            FaultScope::Zone if is_per_endpoint => self.sample.zone_groups,
            FaultScope::Endpoint | FaultScope::Zone => 1.0,
        };
        let quantile = |share: f64| {
            let rank = (share.powf(1.0 / groups) * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
        };
        Some(WindowSpread {
            best: *sorted.first()?,
            median: quantile(0.5)?,
            p99: quantile(0.99)?,
            worst: *sorted.last()?,
            quantiles: std::array::from_fn(|step| {
                quantile(step as f64 / QUANTILES as f64).unwrap_or_default()
            }),
            trials: sorted.len() as u32,
            undetected_trials: undetected_trials as u32,
        })
    }

    /// The closed form counts from the probe's start, with a fixed round trip. The lower bound
    /// counts from the probe's arrival, the upper bound has the longest round trips.
    fn is_within_closed_form(&self, spread: &WindowSpread) -> bool {
        let jitter_factor = 1.0 + self.settings().round_trip_jitter;
        let slowest = self.question.latency.upper_quantile(0.0);
        let on_the_way = self.question.round_trip.mul_f64(jitter_factor) * 2 + slowest;
        let least = self.closed_form(1.0).best.saturating_sub(on_the_way);
        least <= spread.best && spread.worst <= self.closed_form(jitter_factor).worst
    }
}

//! How long a failure stays undetected: a pool's detection window for every kind of failure, from
//! simulation, with the closed form beside it. And how often a healthy endpoint gets a verdict.

pub mod false_positives;
mod fault;
mod fault_trial;
mod pool_sample;
#[cfg(test)]
mod tests;

pub use fault::{FaultCase, FaultKind, FaultScope};

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::model::id::Locality;
use crate::logic::model::topology::{PoolSpec, Topology};
use crate::logic::probing::detection_window;
use crate::logic::probing::detection_window::DetectionBounds;

use super::latency::LatencyModel;
use super::parallel;
use super::world::{ProbeFinding, ProbeResponse};
use fault_trial::FaultTrial;
use pool_sample::PoolSample;

/// Trials of each fault and scope by default.
pub const DEFAULT_TRIALS: u32 = 1_000;

/// The budget of director turns for all trials of one fault and scope. A trial with very many turns
/// (hundreds of strikes in a row, or much traffic that does not meet the fault) leaves fewer
/// trials.
const MAX_STEPS: u64 = 200_000;

/// The minimum number of trials for a tail.
const MIN_TRIALS: u32 = 50;

/// If none of this many trials (or of those within the budget) ends with a verdict, the fault
/// counts as undetected.
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
    /// The time with traffic before the failure; `None` means until every endpoint has had some
    /// requests.
    pub warm_up: Option<Duration>,
    /// The latency of healthy endpoints.
    pub latency: LatencyModel,
    /// Worker threads of the proxy: each has its own connections to the endpoints.
    pub workers: usize,
    /// The number of simulations that may run in parallel. The result does not depend on it.
    pub threads: usize,
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
#[expect(clippy::large_enum_variant, reason = "nearly all are detected, and there are few")]
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
    input: &PredictionInput,
    base: Instant,
) -> Prediction {
    let topology = single_pool_topology(pool, local_zone);
    let rates = std::iter::once(None).chain(input.rate_rps.map(Some));
    let samples: Vec<_> =
        rates.map(|rate| (rate, PoolSample::from_topology(&topology, rate))).collect();
    let faults =
        || FaultKind::ALL.into_iter().filter(|fault| fault.is_applicable_to(pool.primary_probe()));
    let mut fault_trials = Vec::new();
    for (rate_rps, sample) in &samples {
        for scope in [FaultScope::Endpoint, FaultScope::Zone] {
            fault_trials.extend(faults().map(|fault| {
                let case = FaultCase { scope, fault };
                (*rate_rps, FaultTrial { pool, sample, input, case, base })
            }));
        }
    }
    let rows = parallel::parallel_map(&fault_trials, input.threads, |(rate_rps, trial)| {
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

/// One row of [`predict`], with the traffic of `input` if it has any.
pub fn predict_row(
    pool: &PoolSpec,
    local_zone: Option<&Locality>,
    input: &PredictionInput,
    case: FaultCase,
    base: Instant,
) -> PredictionRow {
    let sample = PoolSample::from_topology(&single_pool_topology(pool, local_zone), input.rate_rps);
    FaultTrial { pool, sample: &sample, input, case, base }.predict_row(input.rate_rps)
}

/// The same for the zone with this index in the pool's list.
pub fn predict_zone_row(
    pool: &PoolSpec,
    local_zone: Option<&Locality>,
    input: &PredictionInput,
    zone: usize,
    case: FaultCase,
    base: Instant,
) -> PredictionRow {
    let sample = PoolSample::with_failing_zone(
        &single_pool_topology(pool, local_zone),
        zone,
        input.rate_rps,
    );
    FaultTrial { pool, sample: &sample, input, case, base }.predict_row(input.rate_rps)
}

/// The closed form for this fault and scope, by active probes alone, without a simulation. `None`
/// where no probe detects it.
pub fn closed_form(
    pool: &PoolSpec,
    round_trip: Duration,
    case: FaultCase,
) -> Option<DetectionBounds> {
    let cost = probe_cost(pool, case.fault, round_trip, DEFAULT_SERVICE_TIME)?;
    Some(closed_form_bounds(pool, case, cost..=cost))
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

/// The closed form for probe costs in this range.
fn closed_form_bounds(
    pool: &PoolSpec,
    FaultCase { scope, fault }: FaultCase,
    costs: RangeInclusive<Duration>,
) -> DetectionBounds {
    let (least, most) = costs.into_inner();
    let bounds = |cost| detection_window::detection_bounds(fault.class(), &pool.detect, cost);
    let worst = bounds(most).worst;
    if scope == FaultScope::Zone && has_zone_verdict(pool, fault) {
        // The first strikes of enough of its endpoints are the zone's verdict.
        return DetectionBounds { best: least, worst };
    }
    DetectionBounds { best: bounds(least).best, worst }
}

/// Why no probe of this pool detects this fault; `None` if one does. `base` is any instant.
pub fn undetected_by_probes(
    pool: &PoolSpec,
    input: &PredictionInput,
    fault: FaultKind,
    base: Instant,
) -> Option<UndetectedReason> {
    let sample = PoolSample::from_topology(&single_pool_topology(pool, None), None);
    let case = FaultCase { scope: FaultScope::Endpoint, fault };
    FaultTrial { pool, sample: &sample, input, case, base }.undetected_reason(false)
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

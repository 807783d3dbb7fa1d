//! The trials of one fault and scope, and the row of the prediction that they give.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::model::topology::PoolSpec;
use crate::logic::probing::detection_window::DetectionBounds;
use crate::sim::latency::LatencyModel;
use crate::sim::world::{EndpointBehavior, ProbeResponse, SimulationSettings};

use super::pool_sample::{FaultOnset, PoolSample, TrialResult};
use super::{
    FaultCase, FaultScope, MAX_STEPS, MAX_UNDETECTED_TRIALS, MIN_TRIALS, PredictedWindow,
    PredictionInput, PredictionRow, QUANTILES, TRAFFIC_DETECTION_TIMEOUT, UndetectedReason,
    WindowSpread, closed_form_bounds, has_zone_verdict, probe_cost,
};

/// The trials of one kind of failure.
pub(super) struct FaultTrial<'a> {
    pub(super) pool: &'a PoolSpec,
    pub(super) sample: &'a PoolSample,
    pub(super) input: &'a PredictionInput,
    pub(super) case: FaultCase,
    pub(super) base: Instant,
}

impl FaultTrial<'_> {
    pub(super) fn predict_row(&self, traffic_rps: Option<f64>) -> PredictionRow {
        let closed_form = self.is_visible_to_probes().then(|| self.closed_form(1.0));
        let window = self.predict_window(traffic_rps.is_some());
        let FaultCase { scope, fault } = self.case;
        PredictionRow { scope, fault, traffic_rps, window, closed_form }
    }

    fn settings(&self) -> SimulationSettings {
        let round_trip = self.input.round_trip;
        SimulationSettings {
            round_trip,
            latency: self.input.latency.clone(),
            workers: self.input.workers,
            ..SimulationSettings::default()
        }
    }

    fn is_visible_to_probes(&self) -> bool {
        self.probe_cost(1.0, self.input.latency.upper_quantile(0.5)).is_some()
    }

    fn probe_cost(&self, jitter_factor: f64, service: Duration) -> Option<Duration> {
        let round_trip = self.input.round_trip.mul_f64(jitter_factor);
        probe_cost(self.pool, self.case.fault, round_trip, service)
    }

    fn closed_form(&self, jitter_factor: f64) -> DetectionBounds {
        // The shortest latency bounds the best case, the longest one the worst case.
        let cost = |exceeded_by: f64| {
            let service = self.input.latency.upper_quantile(exceeded_by);
            self.probe_cost(jitter_factor, service).unwrap_or(self.input.round_trip)
        };
        closed_form_bounds(self.pool, self.case, cost(1.0)..=cost(0.0))
    }

    fn has_zone_verdict(&self, with_traffic: bool) -> bool {
        has_zone_verdict(self.pool, self.case.fault)
            || with_traffic
                && self.case.fault.is_visible_to_traffic()
                && self.pool.correlation.quorum_percent <= 100
    }

    /// Why it is certain beforehand that the fault is never detected, if it is.
    pub(super) fn undetected_reason(&self, with_traffic: bool) -> Option<UndetectedReason> {
        if !self.can_pass_probe() {
            return Some(UndetectedReason::NeverUp);
        }
        let is_seen_by_traffic = with_traffic && self.case.fault.is_visible_to_traffic();
        if self.is_visible_to_probes() || is_seen_by_traffic {
            return None;
        }
        let needs_traffic = self.case.fault.is_invisible_to_probes();
        Some(if needs_traffic {
            UndetectedReason::NeedsTraffic
        } else {
            UndetectedReason::ProbePasses
        })
    }

    fn predict_window(&self, with_traffic: bool) -> PredictedWindow {
        if let Some(reason) = self.undetected_reason(with_traffic) {
            return PredictedWindow::Undetected(reason);
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
                    !with_traffic && matches!(self.input.latency, LatencyModel::Fixed(_));
                let within_closed_form = is_bounded.then(|| self.is_within_closed_form(&spread));
                PredictedWindow::Detected { spread, within_closed_form }
            }
        }
    }

    /// Whether the usual latency is short enough for the probe.
    fn can_pass_probe(&self) -> bool {
        let usual = self.input.latency.upper_quantile(0.5);
        let healthy = EndpointBehavior::Healthy { latency: LatencyModel::Fixed(usual) };
        let response = healthy.probe_response(self.pool.primary_probe(), usual);
        let ProbeResponse::Answer { round_trips, service_time: service, .. } = response else {
            return false;
        };
        let jitter = self.settings().round_trip_jitter;
        let longest = self.input.round_trip.mul_f64(1.0 + jitter) * round_trips;
        longest + service <= self.pool.detect.timeout
    }

    /// The time that each trial took; `None` if it exceeded `timeout`.
    fn run_trials(&self, timeout: Duration) -> Vec<Option<Duration>> {
        let mut rng = Rng::with_seed(self.input.seed);
        let mut steps = 0;
        let mut detection_times = Vec::new();
        for trial in 0..self.input.trials.max(1) {
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
            scope: self.case.scope,
            fault: self.case.fault,
            phase: self.pool.detect.interval.mul_f64(rng.f64()),
            timeout,
            warm_up: self.input.warm_up,
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
        let groups = match self.case.scope {
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
        let slowest = self.input.latency.upper_quantile(0.0);
        let on_the_way = self.input.round_trip.mul_f64(jitter_factor) * 2 + slowest;
        let least = self.closed_form(1.0).best.saturating_sub(on_the_way);
        least <= spread.best && spread.worst <= self.closed_form(jitter_factor).worst
    }
}

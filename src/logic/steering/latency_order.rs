//! The order of a pool's regions by latency, measured by requests and probes.
//!
//! Probes ask every region the same, so they compare regions; requests measure what matters, but
//! only where traffic goes. So a region with traffic is estimated by its requests, and one without
//! traffic by its probes. The usual difference between requests and probes is added, and a penalty
//! for slow requests of the past. The penalty decays, so that the region is tried again.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// Period between two calls of [`LatencyOrder::update`].
pub const LATENCY_UPDATE_INTERVAL: Duration = Duration::from_secs(1);

/// Time constant (1/e) of the exponential smoothing.
const SMOOTHING: Duration = Duration::from_secs(10);

/// Age up to which request latencies count alone.
const TRAFFIC_FRESHNESS: Duration = Duration::from_secs(10);

/// Half-life of the penalty, and time constant of an increase of the request overhead.
const PENALTY_HALF_LIFE: Duration = Duration::from_mins(5);

/// Minimum number of requests between two updates for a usable mean.
const MIN_REQUESTS: u64 = 5;

/// Minimum ratio of latencies before a region overtakes the one before it, in thousandths.
const MIN_RATIO_PERMILLE: f64 = 1_250.0;

/// Minimum difference of latencies for overtaking, in microseconds.
const MIN_DIFFERENCE_US: f64 = 1_000.0;

/// Consecutive updates that both thresholds must be exceeded.
const MIN_CONSECUTIVE_UPDATES: u32 = 5;

/// The measurements of one region since the last update.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionSample {
    /// Number of good responses, and the sum of their times to first byte in microseconds.
    pub responses: (u64, u64),
    /// Mean duration of probes, in microseconds.
    pub probe_us: Option<f64>,
}

/// The smoothed latencies of one region.
#[derive(Clone, Debug, PartialEq)]
struct RegionLatency {
    name: Arc<str>,
    traffic_us: Option<f64>,
    /// Time of the last usable request mean.
    last_traffic_at: Option<Instant>,
    probe_us: Option<f64>,
    /// Consecutive updates in which it was clearly faster than the region before it.
    faster_updates: u32,
}

/// The regions of a pool, the fastest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencyOrder {
    regions: Vec<RegionLatency>,
    updated_at: Option<Instant>,
    has_initial_order: bool,
    /// The usual difference between requests and probes, in microseconds.
    request_overhead_us: Option<f64>,
}

impl LatencyOrder {
    /// Keeps the measurements of existing regions; new regions are appended.
    pub fn set_regions<'r>(&mut self, names: impl Iterator<Item = &'r Arc<str>> + Clone) {
        self.regions.retain(|region| names.clone().any(|name| *name == region.name));
        for name in names {
            if !self.regions.iter().any(|region| region.name == *name) {
                let name = Arc::clone(name);
                let (traffic_us, last_traffic_at, probe_us) = (None, None, None);
                self.regions.push(RegionLatency {
                    name,
                    traffic_us,
                    last_traffic_at,
                    probe_us,
                    faster_updates: 0,
                });
            }
        }
    }

    pub fn region_names(&self) -> Vec<&str> {
        self.regions.iter().map(|region| &*region.name).collect()
    }

    /// Estimated request latency of each region in microseconds, in the current order.
    pub fn estimates(&self, now: Instant) -> Vec<(&str, Option<f64>)> {
        let request_overhead_us = self.request_overhead_us.unwrap_or(0.0);
        self.regions
            .iter()
            .map(|region| (&*region.name, region.estimate(request_overhead_us, now)))
            .collect()
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.updated_at
            .is_none_or(|at| now.saturating_duration_since(at) >= LATENCY_UPDATE_INTERVAL)
    }

    /// Adds measurements; returns whether the order has changed.
    pub fn update(&mut self, sample: impl Fn(&str) -> RegionSample, now: Instant) -> bool {
        let elapsed = self.updated_at.map_or(SMOOTHING, |at| now.saturating_duration_since(at));
        self.updated_at = Some(now);
        let smoothing_factor = 1.0 - (-elapsed.as_secs_f64() / SMOOTHING.as_secs_f64()).exp();
        for region in &mut self.regions {
            let RegionSample { responses: (count, sum_us), probe_us } = sample(&region.name);
            if count >= MIN_REQUESTS {
                let mean_us = sum_us as f64 / count as f64;
                // An old average does not smooth new measurements.
                let before = region.traffic_us.filter(|_| region.is_fresh(now)).unwrap_or(mean_us);
                region.traffic_us = Some(before + (mean_us - before) * smoothing_factor);
                region.last_traffic_at = Some(now);
            }
            if let Some(probe_us) = probe_us {
                let before = region.probe_us.unwrap_or(probe_us);
                region.probe_us = Some(before + (probe_us - before) * smoothing_factor);
            }
        }
        let before: Vec<Arc<str>> =
            self.regions.iter().map(|region| Arc::clone(&region.name)).collect();
        self.update_request_overhead(elapsed, now);
        let request_overhead_us = self.request_overhead_us.unwrap_or(0.0);
        let is_known =
            self.regions.iter().all(|region| region.estimate(request_overhead_us, now).is_some());
        if is_known && !self.has_initial_order {
            self.has_initial_order = true;
            let estimate_us = |region: &RegionLatency| {
                region.estimate(request_overhead_us, now).unwrap_or(f64::MAX)
            };
            self.regions.sort_by(|a, b| estimate_us(a).total_cmp(&estimate_us(b)));
        } else {
            self.promote_faster_regions(request_overhead_us, now);
        }
        self.regions.iter().zip(&before).any(|(region, name)| region.name != *name)
    }

    /// A region swaps places with the one before it after it has been clearly faster for some time.
    fn promote_faster_regions(&mut self, request_overhead_us: f64, now: Instant) {
        for later in 1..self.regions.len() {
            let estimate_us = |index: usize| self.regions[index].estimate(request_overhead_us, now);
            let is_faster = match (estimate_us(later - 1), estimate_us(later)) {
                (Some(first), Some(second)) => {
                    first * 1_000.0 > second * MIN_RATIO_PERMILLE
                        && first - second > MIN_DIFFERENCE_US
                }
                _ => false,
            };
            let region = &mut self.regions[later];
            region.faster_updates = if is_faster { region.faster_updates + 1 } else { 0 };
            if region.faster_updates >= MIN_CONSECUTIVE_UPDATES {
                region.faster_updates = 0;
                self.regions.swap(later - 1, later);
            }
        }
    }

    /// A smaller overhead applies at once, a larger one only gradually: it may be the problem of a
    /// single region.
    fn update_request_overhead(&mut self, elapsed: Duration, now: Instant) {
        let fresh = self.regions.iter().filter(|region| region.is_fresh(now));
        let overheads = fresh.filter_map(|region| Some(region.traffic_us? - region.probe_us?));
        let Some(least) = overheads.min_by(f64::total_cmp).map(|least| least.max(0.0)) else {
            return;
        };
        let before = self.request_overhead_us.unwrap_or(least);
        let smoothing_factor =
            1.0 - (-elapsed.as_secs_f64() / PENALTY_HALF_LIFE.as_secs_f64()).exp();
        self.request_overhead_us =
            Some(if least < before { least } else { before + (least - before) * smoothing_factor });
    }
}

impl RegionLatency {
    fn is_fresh(&self, now: Instant) -> bool {
        self.last_traffic_at.is_some_and(|at| now.saturating_duration_since(at) < TRAFFIC_FRESHNESS)
    }

    fn estimate(&self, request_overhead_us: f64, now: Instant) -> Option<f64> {
        if self.is_fresh(now) {
            return self.traffic_us;
        }
        let expected = self.probe_us? + request_overhead_us;
        let (Some(traffic_us), Some(at)) = (self.traffic_us, self.last_traffic_at) else {
            return Some(expected);
        };
        let half_lives =
            now.saturating_duration_since(at).as_secs_f64() / PENALTY_HALF_LIFE.as_secs_f64();
        Some(expected + (traffic_us - expected).max(0.0) * (-half_lives).exp2())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency_order() -> (LatencyOrder, Instant) {
        let mut order = LatencyOrder::default();
        let names = ["far", "near"].map(Arc::from);
        order.set_regions(names.iter());
        (order, Instant::now())
    }

    /// Probe durations of both regions in milliseconds, and the request latency of one of them.
    fn region_sample(
        probes: [f64; 2],
        traffic: Option<(&'static str, u64)>,
    ) -> impl Fn(&str) -> RegionSample {
        move |name| RegionSample {
            responses: traffic
                .filter(|(region, _)| *region == name)
                .map_or((0, 0), |(_, ms)| (100, 100_000 * ms)),
            probe_us: Some(probes[usize::from(name == "near")] * 1_000.0),
        }
    }

    #[test]
    fn order_is_set_at_once_and_does_not_flap_on_noise() {
        let (mut order, mut now) = latency_order();
        assert_eq!(order.region_names(), ["far", "near"], "as listed");
        assert!(order.update(region_sample([50.0, 5.0], None), now));
        assert_eq!(order.region_names(), ["near", "far"]);
        let mut swaps = 0;
        for second in 0..600 {
            now += LATENCY_UPDATE_INTERVAL;
            // Equal latencies with noise of a fifth.
            let noise = if second % 2 == 0 { 10.0 } else { 12.0 };
            swaps += u32::from(order.update(region_sample([noise, 22.0 - noise], None), now));
        }
        assert_eq!(swaps, 0, "it does not flap");
    }

    #[test]
    fn slow_region_is_overtaken_within_a_minute() {
        let (mut order, mut now) = latency_order();
        order.update(region_sample([20.0, 5.0], Some(("near", 8))), now);
        assert_eq!(order.region_names(), ["near", "far"]);
        let mut seconds = 0;
        while order.region_names()[0] == "near" {
            now += LATENCY_UPDATE_INTERVAL;
            seconds += 1;
            order.update(region_sample([20.0, 60.0], Some(("near", 70))), now);
            assert!(seconds < 60);
        }
        assert!(seconds >= MIN_CONSECUTIVE_UPDATES, "not by the first word of it");
        let estimates = order.estimates(now);
        assert_eq!(estimates[0].0, "far");
        assert!(estimates[0].1.expect("an estimate") < 40_000.0, "{estimates:?}");
    }

    /// The probes of the slow region are fast.
    #[test]
    fn region_with_slow_requests_is_retried_after_minutes() {
        let (mut order, mut now) = latency_order();
        order.update(region_sample([40.0, 1.0], Some(("near", 2))), now);
        let mut left = Vec::new();
        let mut first = order.region_names()[0] == "near";
        for second in 0..3_600 {
            now += LATENCY_UPDATE_INTERVAL;
            let traffic =
                if order.region_names()[0] == "near" { ("near", 120) } else { ("far", 41) };
            order.update(region_sample([40.0, 1.0], Some(traffic)), now);
            let is_near = order.region_names()[0] == "near";
            if first != is_near {
                left.push((second, is_near));
            }
            first = is_near;
        }
        assert!(left[0].0 < 60 && !left[0].1, "{left:?}");
        assert!(left[1].0 > 300, "not at once again: {left:?}");
        let again = left.iter().filter(|(_, is_near)| *is_near).count();
        assert!((1..12).contains(&again), "tried from time to time: {left:?}");
    }

    #[test]
    fn idle_region_estimate_adds_request_overhead_to_probe() {
        let (mut order, now) = latency_order();
        order.update(region_sample([6.0, 5.0], Some(("near", 25))), now);
        let estimates = order.estimates(now);
        assert_eq!(estimates, [("near", Some(25_000.0)), ("far", Some(26_000.0))]);
    }
}

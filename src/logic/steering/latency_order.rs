//! Which region answers soonest, learnt from what comes back.
//!
//! Probes ask every region the same, so that they tell regions apart; answers to requests tell what
//! it is about, but only where requests go. So a region that has traffic is known by it, and one that
//! has none by its probes, to which is added what requests usually take longer than probes, and what
//! it took longer than that when it last had traffic: that fades, so that it is tried again.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often regions are looked at.
pub const LATENCY_UPDATE_INTERVAL: Duration = Duration::from_secs(1);

/// What was seen counts less and less: to a third within this time.
const SMOOTHING: Duration = Duration::from_secs(10);

/// Answers to requests speak for themselves so long.
const TRAFFIC_FRESHNESS: Duration = Duration::from_secs(10);

/// What was slow once is half forgotten after this time; what is usual follows within it.
const PENALTY_HALF_LIFE: Duration = Duration::from_mins(5);

/// Requests between two looks that tell something.
const MIN_REQUESTS: u64 = 5;

/// A region passes another one that takes so much longer, in thousandths, …
const MIN_RATIO_PERMILLE: f64 = 1_250.0;

/// … and so much longer in microseconds, …
const MIN_DIFFERENCE_US: f64 = 1_000.0;

/// … in so many looks in a row.
const MIN_CONSECUTIVE_UPDATES: u32 = 5;

/// What came back from one region since the last look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionSample {
    /// Requests that were answered well, and what all of them took together, in microseconds.
    pub responses: (u64, u64),
    /// What probes of it take, in microseconds.
    pub probe_us: Option<f64>,
}

/// What is known of one region.
#[derive(Clone, Debug, PartialEq)]
struct RegionLatency {
    name: Arc<str>,
    traffic_us: Option<f64>,
    /// When requests last told something.
    last_traffic_at: Option<Instant>,
    probe_us: Option<f64>,
    /// Looks in a row at which it was clearly sooner than the one before it in the order.
    faster_updates: u32,
}

/// The regions of a pool, the soonest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencyOrder {
    regions: Vec<RegionLatency>,
    updated_at: Option<Instant>,
    has_initial_order: bool,
    /// What requests usually take longer than probes, in microseconds.
    request_overhead_us: Option<f64>,
}

impl LatencyOrder {
    /// Keeps what is known of these regions; those that are new come last.
    pub fn set_regions<'r>(&mut self, names: impl Iterator<Item = &'r Arc<str>> + Clone) {
        self.regions.retain(|region| names.clone().any(|name| *name == region.name));
        for name in names {
            if !self.regions.iter().any(|region| region.name == *name) {
                let name = Arc::clone(name);
                let (traffic_us, told_at, probe_us) = (None, None, None);
                self.regions.push(RegionLatency {
                    name,
                    traffic_us,
                    last_traffic_at: told_at,
                    probe_us,
                    faster_updates: 0,
                });
            }
        }
    }

    pub fn region_names(&self) -> Vec<&str> {
        self.regions.iter().map(|region| &*region.name).collect()
    }

    /// What a request to each region takes by what is known, in microseconds, the soonest first.
    pub fn estimates(&self, now: Instant) -> Vec<(&str, Option<f64>)> {
        let request_overhead_us = self.request_overhead_us.unwrap_or(0.0);
        self.regions
            .iter()
            .map(|region| (&*region.name, region.estimate(request_overhead_us, now)))
            .collect()
    }

    /// Whether it is time for a look.
    pub fn is_due(&self, now: Instant) -> bool {
        self.updated_at
            .is_none_or(|at| now.saturating_duration_since(at) >= LATENCY_UPDATE_INTERVAL)
    }

    /// Takes in what came back; whether the order has changed.
    pub fn update(&mut self, sample: impl Fn(&str) -> RegionSample, now: Instant) -> bool {
        let elapsed = self.updated_at.map_or(SMOOTHING, |at| now.saturating_duration_since(at));
        self.updated_at = Some(now);
        let smoothing_factor = 1.0 - (-elapsed.as_secs_f64() / SMOOTHING.as_secs_f64()).exp();
        for region in &mut self.regions {
            let RegionSample { responses: (count, sum_us), probe_us } = sample(&region.name);
            if count >= MIN_REQUESTS {
                let mean_us = sum_us as f64 / count as f64;
                // What was known long ago is no company for what is known now.
                let before = region.traffic_us.filter(|_| region.is_fresh(now)).unwrap_or(mean_us);
                region.traffic_us = Some(before + (mean_us - before) * smoothing_factor);
                region.last_traffic_at = Some(now);
            }
            if let Some(probe_us) = probe_us {
                let before = region.probe_us.unwrap_or(probe_us);
                region.probe_us = Some(before + (probe_us - before) * smoothing_factor);
            }
        }
        let before: Vec<Arc<str>> = self.regions.iter().map(|one| Arc::clone(&one.name)).collect();
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

    /// Neighbours change places when the later one has been clearly sooner for some time.
    fn promote_faster_regions(&mut self, request_overhead_us: f64, now: Instant) {
        for later in 1..self.regions.len() {
            let estimate_us = |at: usize| self.regions[at].estimate(request_overhead_us, now);
            let is_faster = match (estimate_us(later - 1), estimate_us(later)) {
                (Some(first), Some(second)) => {
                    first * 1_000.0 > second * MIN_RATIO_PERMILLE
                        && first - second > MIN_DIFFERENCE_US
                }
                _ => false,
            };
            let one = &mut self.regions[later];
            one.faster_updates = if is_faster { one.faster_updates + 1 } else { 0 };
            if one.faster_updates >= MIN_CONSECUTIVE_UPDATES {
                one.faster_updates = 0;
                self.regions.swap(later - 1, later);
            }
        }
    }

    /// Less is believed at once, more only when it lasts: it may be one region's own trouble.
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
        let mut nearness = LatencyOrder::default();
        let names = ["far", "near"].map(Arc::from);
        nearness.set_regions(names.iter());
        (nearness, Instant::now())
    }

    /// Probes of both regions in milliseconds, and what requests to one of them take.
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
        let (mut nearness, mut now) = latency_order();
        assert_eq!(nearness.region_names(), ["far", "near"], "as listed");
        assert!(nearness.update(region_sample([50.0, 5.0], None), now));
        assert_eq!(nearness.region_names(), ["near", "far"]);
        let mut swaps = 0;
        for second in 0..600 {
            now += LATENCY_UPDATE_INTERVAL;
            // Both as far, with noise of a fifth.
            let noise = if second % 2 == 0 { 10.0 } else { 12.0 };
            swaps += u32::from(nearness.update(region_sample([noise, 22.0 - noise], None), now));
        }
        assert_eq!(swaps, 0, "it does not flap");
    }

    #[test]
    fn slow_region_is_overtaken_within_a_minute() {
        let (mut nearness, mut now) = latency_order();
        nearness.update(region_sample([20.0, 5.0], Some(("near", 8))), now);
        assert_eq!(nearness.region_names(), ["near", "far"]);
        let mut seconds = 0;
        while nearness.region_names()[0] == "near" {
            now += LATENCY_UPDATE_INTERVAL;
            seconds += 1;
            nearness.update(region_sample([20.0, 60.0], Some(("near", 70))), now);
            assert!(seconds < 60);
        }
        assert!(seconds >= MIN_CONSECUTIVE_UPDATES, "not by the first word of it");
        let estimates = nearness.estimates(now);
        assert_eq!(estimates[0].0, "far");
        assert!(estimates[0].1.expect("known") < 40_000.0, "{estimates:?}");
    }

    /// Its probes say nothing of it.
    #[test]
    fn region_with_slow_requests_is_retried_after_minutes() {
        let (mut nearness, mut now) = latency_order();
        nearness.update(region_sample([40.0, 1.0], Some(("near", 2))), now);
        let mut left = Vec::new();
        let mut first = nearness.region_names()[0] == "near";
        for second in 0..3_600 {
            now += LATENCY_UPDATE_INTERVAL;
            let traffic =
                if nearness.region_names()[0] == "near" { ("near", 120) } else { ("far", 41) };
            nearness.update(region_sample([40.0, 1.0], Some(traffic)), now);
            let is_near = nearness.region_names()[0] == "near";
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
        let (mut nearness, now) = latency_order();
        nearness.update(region_sample([6.0, 5.0], Some(("near", 25))), now);
        let estimates = nearness.estimates(now);
        assert_eq!(estimates, [("near", Some(25_000.0)), ("far", Some(26_000.0))]);
    }
}

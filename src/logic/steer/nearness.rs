//! Which region answers soonest, learnt from what comes back.
//!
//! Probes ask every region the same, so that they tell regions apart; answers to requests tell what
//! it is about, but only where requests go. So a region that has traffic is known by it, and one that
//! has none by its probes, to which is added what requests usually take longer than probes, and what
//! it took longer than that when it last had traffic: that fades, so that it is tried again.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often regions are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was seen counts less and less: to a third within this time.
const MEMORY: Duration = Duration::from_secs(10);

/// Answers to requests speak for themselves so long.
const FRESH: Duration = Duration::from_secs(10);

/// What was slow once is half forgotten after this time; what is usual follows within it.
const FORGET: Duration = Duration::from_mins(5);

/// Requests between two looks that tell something.
const TELLING: u64 = 5;

/// A region passes another one that takes so much longer, in thousandths, …
const CLEARLY: f64 = 1_250.0;

/// … and so much longer in microseconds, …
const AT_LEAST_US: f64 = 1_000.0;

/// … in so many looks in a row.
const LOOKS: u32 = 5;

/// What came back from one region since the last look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Requests that were answered well, and what all of them took together, in microseconds.
    pub answers: (u64, u64),
    /// What probes of it take, in microseconds.
    pub probe_us: Option<f64>,
}

/// What is known of one region.
#[derive(Clone, Debug, PartialEq)]
struct Region {
    name: Arc<str>,
    traffic_us: Option<f64>,
    /// When requests last told something.
    told_at: Option<Instant>,
    probe_us: Option<f64>,
    /// Looks in a row at which it was clearly sooner than the one before it in the order.
    sooner: u32,
}

/// The regions of a pool, the soonest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Nearness {
    regions: Vec<Region>,
    looked_at: Option<Instant>,
    is_settled: bool,
    /// What requests usually take longer than probes, in microseconds.
    usual_us: Option<f64>,
}

impl Nearness {
    /// Keeps what is known of these regions; those that are new come last.
    pub fn configure<'r>(&mut self, names: impl Iterator<Item = &'r Arc<str>> + Clone) {
        self.regions.retain(|region| names.clone().any(|name| *name == region.name));
        for name in names {
            if !self.regions.iter().any(|region| region.name == *name) {
                let name = Arc::clone(name);
                let (traffic_us, told_at, probe_us) = (None, None, None);
                self.regions.push(Region { name, traffic_us, told_at, probe_us, sooner: 0 });
            }
        }
    }

    /// The soonest first.
    #[must_use]
    pub fn order(&self) -> Vec<&str> {
        self.regions.iter().map(|region| &*region.name).collect()
    }

    /// What a request to each region takes by what is known, in microseconds, the soonest first.
    #[must_use]
    pub fn estimates(&self, now: Instant) -> Vec<(&str, Option<f64>)> {
        let usual = self.usual_us.unwrap_or(0.0);
        self.regions.iter().map(|region| (&*region.name, region.estimate(usual, now))).collect()
    }

    /// Whether it is time for a look.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.looked_at.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_EVERY)
    }

    /// Takes in what came back; whether the order has changed.
    pub fn look(&mut self, seen: impl Fn(&str) -> Seen, now: Instant) -> bool {
        let passed = self.looked_at.map_or(MEMORY, |at| now.saturating_duration_since(at));
        self.looked_at = Some(now);
        let new = 1.0 - (-passed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        for region in &mut self.regions {
            let Seen { answers: (count, sum_us), probe_us } = seen(&region.name);
            if count >= TELLING {
                let mean_us = sum_us as f64 / count as f64;
                // What was known long ago is no company for what is known now.
                let before = region.traffic_us.filter(|_| region.is_fresh(now)).unwrap_or(mean_us);
                region.traffic_us = Some(before + (mean_us - before) * new);
                region.told_at = Some(now);
            }
            if let Some(probe_us) = probe_us {
                let before = region.probe_us.unwrap_or(probe_us);
                region.probe_us = Some(before + (probe_us - before) * new);
            }
        }
        let before: Vec<Arc<str>> = self.regions.iter().map(|one| Arc::clone(&one.name)).collect();
        self.learn_the_usual(passed, now);
        let usual = self.usual_us.unwrap_or(0.0);
        let is_known = self.regions.iter().all(|region| region.estimate(usual, now).is_some());
        if is_known && !self.is_settled {
            self.is_settled = true;
            let us = |region: &Region| region.estimate(usual, now).unwrap_or(f64::MAX);
            self.regions.sort_by(|a, b| us(a).total_cmp(&us(b)));
        } else {
            self.overtake(usual, now);
        }
        self.regions.iter().zip(&before).any(|(region, name)| region.name != *name)
    }

    /// Neighbours change places when the later one has been clearly sooner for some time.
    fn overtake(&mut self, usual: f64, now: Instant) {
        for later in 1..self.regions.len() {
            let us = |at: usize| self.regions[at].estimate(usual, now);
            let is_sooner = match (us(later - 1), us(later)) {
                (Some(first), Some(second)) => {
                    first * 1_000.0 > second * CLEARLY && first - second > AT_LEAST_US
                }
                _ => false,
            };
            let one = &mut self.regions[later];
            one.sooner = if is_sooner { one.sooner + 1 } else { 0 };
            if one.sooner >= LOOKS {
                one.sooner = 0;
                self.regions.swap(later - 1, later);
            }
        }
    }

    /// Less is believed at once, more only when it lasts: it may be one region's own trouble.
    fn learn_the_usual(&mut self, passed: Duration, now: Instant) {
        let fresh = self.regions.iter().filter(|region| region.is_fresh(now));
        let beyond = fresh.filter_map(|region| Some(region.traffic_us? - region.probe_us?));
        let Some(least) = beyond.min_by(f64::total_cmp).map(|least| least.max(0.0)) else { return };
        let before = self.usual_us.unwrap_or(least);
        let new = 1.0 - (-passed.as_secs_f64() / FORGET.as_secs_f64()).exp();
        self.usual_us = Some(if least < before { least } else { before + (least - before) * new });
    }
}

impl Region {
    fn is_fresh(&self, now: Instant) -> bool {
        self.told_at.is_some_and(|at| now.saturating_duration_since(at) < FRESH)
    }

    fn estimate(&self, usual: f64, now: Instant) -> Option<f64> {
        if self.is_fresh(now) {
            return self.traffic_us;
        }
        let expected = self.probe_us? + usual;
        let (Some(told_us), Some(at)) = (self.traffic_us, self.told_at) else {
            return Some(expected);
        };
        let halves = now.saturating_duration_since(at).as_secs_f64() / FORGET.as_secs_f64();
        Some(expected + (told_us - expected).max(0.0) * (-halves).exp2())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearness() -> (Nearness, Instant) {
        let mut nearness = Nearness::default();
        let names = ["far", "near"].map(Arc::from);
        nearness.configure(names.iter());
        (nearness, Instant::now())
    }

    /// Probes of both regions in milliseconds, and what requests to one of them take.
    fn seen(probes: [f64; 2], traffic: Option<(&'static str, u64)>) -> impl Fn(&str) -> Seen {
        move |name| Seen {
            answers: traffic
                .filter(|(region, _)| *region == name)
                .map_or((0, 0), |(_, ms)| (100, 100_000 * ms)),
            probe_us: Some(probes[usize::from(name == "near")] * 1_000.0),
        }
    }

    #[test]
    fn the_order_is_learnt_at_once_and_changed_only_for_good_reason() {
        let (mut nearness, mut now) = nearness();
        assert_eq!(nearness.order(), ["far", "near"], "as listed");
        assert!(nearness.look(seen([50.0, 5.0], None), now));
        assert_eq!(nearness.order(), ["near", "far"]);
        let mut swaps = 0;
        for second in 0..600 {
            now += LOOK_EVERY;
            // Both as far, with noise of a fifth.
            let noise = if second % 2 == 0 { 10.0 } else { 12.0 };
            swaps += u32::from(nearness.look(seen([noise, 22.0 - noise], None), now));
        }
        assert_eq!(swaps, 0, "it does not flap");
    }

    #[test]
    fn a_region_that_has_become_slow_is_passed_within_a_minute() {
        let (mut nearness, mut now) = nearness();
        nearness.look(seen([20.0, 5.0], Some(("near", 8))), now);
        assert_eq!(nearness.order(), ["near", "far"]);
        let mut seconds = 0;
        while nearness.order()[0] == "near" {
            now += LOOK_EVERY;
            seconds += 1;
            nearness.look(seen([20.0, 60.0], Some(("near", 70))), now);
            assert!(seconds < 60);
        }
        assert!(seconds >= LOOKS, "not by the first word of it");
        let estimates = nearness.estimates(now);
        assert_eq!(estimates[0].0, "far");
        assert!(estimates[0].1.expect("known") < 40_000.0, "{estimates:?}");
    }

    /// Its probes say nothing of it.
    #[test]
    fn a_region_that_answers_requests_late_is_left_for_minutes_and_tried_again() {
        let (mut nearness, mut now) = nearness();
        nearness.look(seen([40.0, 1.0], Some(("near", 2))), now);
        let mut left = Vec::new();
        let mut first = nearness.order()[0] == "near";
        for second in 0..3_600 {
            now += LOOK_EVERY;
            let traffic = if nearness.order()[0] == "near" { ("near", 120) } else { ("far", 41) };
            nearness.look(seen([40.0, 1.0], Some(traffic)), now);
            let is_near = nearness.order()[0] == "near";
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
    fn a_region_without_traffic_is_charged_what_requests_take_beyond_probes() {
        let (mut nearness, now) = nearness();
        nearness.look(seen([6.0, 5.0], Some(("near", 25))), now);
        let estimates = nearness.estimates(now);
        assert_eq!(estimates, [("near", Some(25_000.0)), ("far", Some(26_000.0))]);
    }
}

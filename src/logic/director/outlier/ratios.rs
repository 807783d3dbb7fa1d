//! The failure ratios of a pool: sequential tests of each endpoint, of each zone and of the whole.
//!
//! Inputs are attempts since the last evaluation. The output is a pair of scores
//! ([`OutlierScores`]). An endpoint is compared with the rest of its pool, a zone with the other
//! zones: a failure that happens everywhere makes no verdict. Attempts that a verdict explains are
//! removed again ([`PoolRatios::discount`]), so that they do not excuse others.

use std::time::Instant;

use crate::logic::health::failure_ratio::{DecayedCounts, FailureRatioTest};
use crate::logic::model::endpoint_stats::{AttemptCounts, EndpointStats};

/// The test of one endpoint, and how far its live counters have been evaluated.
#[derive(Debug)]
pub(crate) struct EndpointRatio {
    test: FailureRatioTest,
    evaluated: AttemptCounts,
}

/// The tests of a pool and of its zones.
#[derive(Debug)]
pub(crate) struct PoolRatios {
    pool: FailureRatioTest,
    zones: Vec<FailureRatioTest>,
}

/// The weight of the latest attempts against an endpoint and against its zone; see
/// [`crate::logic::health::failure_ratio`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OutlierScores {
    endpoint: f32,
    zone: f32,
}

impl OutlierScores {
    pub(crate) fn endpoint(self) -> f32 {
        self.endpoint
    }

    pub(crate) fn zone(self) -> f32 {
        self.zone
    }
}

impl EndpointRatio {
    pub(crate) fn new(now: Instant) -> Self {
        Self { test: FailureRatioTest::new(now), evaluated: AttemptCounts::default() }
    }

    /// The attempts since the last call, which count as evaluated from now on.
    pub(crate) fn take_new_attempts(&mut self, stats: &EndpointStats) -> AttemptCounts {
        let all = stats.collect_attempts();
        let new = all.since(self.evaluated);
        self.evaluated = all;
        new
    }

    /// Resets the test to `score`; the usual ratio stays.
    pub(crate) fn restart(&mut self, score: f32) {
        self.test.restart(score);
    }

    /// Removes the latest attempts, which a verdict explains.
    pub(crate) fn take_recent(&mut self, now: Instant) -> DecayedCounts {
        self.test.take_recent(now)
    }

    pub(crate) fn recent(&self) -> DecayedCounts {
        self.test.recent()
    }

    /// The test as it stands at `now`.
    pub(crate) fn decayed(&self, now: Instant) -> FailureRatioTest {
        let mut test = self.test;
        test.decay(now);
        test
    }
}

impl PoolRatios {
    /// New tests for `zones` zones, of which `before` gives the test that a zone had.
    pub(crate) fn new(
        zones: usize,
        old: Option<&Self>,
        old_index: impl Fn(usize) -> Option<usize>,
        now: Instant,
    ) -> Self {
        let fresh = FailureRatioTest::new(now);
        let zone = |zone| old.zip(old_index(zone)).map_or(fresh, |(old, index)| old.zones[index]);
        Self { pool: old.map_or(fresh, |old| old.pool), zones: (0..zones).map(zone).collect() }
    }

    /// Applies new attempts of an endpoint of `zone`.
    pub(crate) fn apply(
        &mut self,
        zone: usize,
        endpoint: &mut EndpointRatio,
        attempts: AttemptCounts,
        now: Instant,
    ) -> OutlierScores {
        self.pool.decay(now);
        let recent_attempts = endpoint.test.recent_part(attempts, now);
        endpoint.test.decay(now);
        let others = self.pool.recent().minus(endpoint.test.recent());
        let endpoint_score = endpoint.test.apply_evidence(attempts, recent_attempts, others, now);
        let zone_test = &mut self.zones[zone];
        zone_test.decay(now);
        let elsewhere = self.pool.recent().minus(zone_test.recent());
        let zone_score = zone_test.apply_evidence(attempts, recent_attempts, elsewhere, now);
        self.pool.apply_evidence(attempts, recent_attempts, DecayedCounts::default(), now);
        OutlierScores { endpoint: endpoint_score, zone: zone_score }
    }

    /// Removes the attempts that the verdict on an endpoint of `zone` explains.
    pub(crate) fn discount(&mut self, zone: usize, explained: DecayedCounts, now: Instant) {
        self.pool.exclude(explained, now);
        self.zones[zone].exclude(explained, now);
    }

    /// Resets the test of a zone that has fallen or returned as a whole.
    pub(crate) fn restart_zone(&mut self, zone: usize) {
        self.zones[zone].restart(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::health::failure_ratio::VERDICT_SCORE;
    use std::time::Duration;

    const GOOD: AttemptCounts = AttemptCounts { good: 200, bad: 0 };
    const BAD: AttemptCounts = AttemptCounts { good: 10, bad: 10 };

    /// Scores of an endpoint of zone 0 that fails while endpoints of the zones in `failing` do too.
    fn scores(failing: &[usize]) -> OutlierScores {
        let start = Instant::now();
        let mut pool = PoolRatios::new(3, None, |_| None, start);
        let mut endpoints: Vec<EndpointRatio> = (0..3).map(|_| EndpointRatio::new(start)).collect();
        let mut last = OutlierScores { endpoint: 0.0, zone: 0.0 };
        for round in 1..20 {
            let now = start + Duration::from_millis(100 * round);
            for zone in [2, 1, 0] {
                let attempts = if failing.contains(&zone) && round > 10 { BAD } else { GOOD };
                last = pool.apply(zone, &mut endpoints[zone], attempts, now);
            }
        }
        last
    }

    #[test]
    fn failing_endpoint_and_its_zone_score_against_the_rest() {
        let failing = scores(&[0]);
        assert!(failing.endpoint() > VERDICT_SCORE && failing.zone() > VERDICT_SCORE);
        let healthy = scores(&[1]);
        assert!(healthy.endpoint() < 1.0 && healthy.zone() < 1.0, "{healthy:?}");
    }

    #[test]
    fn tests_of_zones_follow_them_to_other_indexes() {
        let start = Instant::now();
        let mut pool = PoolRatios::new(2, None, |_| None, start);
        let mut endpoint = EndpointRatio::new(start);
        let before = pool.apply(1, &mut endpoint, BAD, start).zone();
        let moved = PoolRatios::new(1, Some(&pool), |_| Some(1), start);
        assert_eq!(moved.zones[0].score(), before);
    }
}

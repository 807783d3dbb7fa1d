//! One worker's use of the latencies of a pool: the bounds for requests, and the choice of
//! responses that are added to the baseline. The request path and the simulator share it.

use std::time::{Duration, Instant};

use super::attribution::{AttemptPlace, ComparisonScope, RequestKey};
use super::slow_requests::SlowRequests;
use crate::logic::health::latency_baseline::{LatencyBaseline, LatencyBounds};
use crate::logic::model::topology::{PoolSpec, StallBounds};

/// The latency state of one pool at one worker.
#[derive(Clone, Debug)]
pub struct PoolLatency {
    limits: StallBounds,
    /// The stall bound before the first sample.
    unlearned: Duration,
    slow: SlowRequests,
}

/// The wait of one attempt for its response head.
#[derive(Clone, Copy, Debug)]
pub struct LatencySample<'a> {
    /// The baseline of the endpoint's region.
    pub baseline: &'a LatencyBaseline,
    pub key: RequestKey,
    pub place: AttemptPlace,
    /// The places to which the request could have been sent instead.
    pub scope: ComparisonScope,
    pub waited: Duration,
    pub now: Instant,
    /// Microseconds since the process epoch.
    pub now_us: u64,
}

impl LatencySample<'_> {
    fn record(&self) {
        self.baseline.record(self.waited, self.now_us);
    }
}

impl PoolLatency {
    pub fn new(spec: &PoolSpec) -> Self {
        Self { limits: spec.stall, unlearned: spec.detect.timeout, slow: SlowRequests::default() }
    }

    /// Applies a changed configuration.
    pub fn configure(&mut self, spec: &PoolSpec) {
        (self.limits, self.unlearned) = (spec.stall, spec.detect.timeout);
    }

    /// The bounds of a request with `key` at an endpoint of the baseline's region.
    pub fn bounds(
        &self,
        baseline: &LatencyBaseline,
        key: RequestKey,
        now: Instant,
    ) -> LatencyBounds {
        let usual = baseline.bounds(self.limits, self.unlearned);
        if self.slow.is_empty() { usual } else { usual.extended_to(self.slow.bound(key, now)) }
    }

    /// The place that a new request with `key` avoids, because its latency elsewhere shows whether
    /// the endpoint there is slow.
    pub fn place_to_avoid(&self, key: RequestKey, now: Instant) -> Option<AttemptPlace> {
        if self.slow.is_empty() { None } else { self.slow.place_to_avoid(key, now) }
    }

    /// Handles a response head. `is_racing` means that another attempt of the request was under
    /// way: the end of the race shows whether a late response is usual.
    pub fn on_response(&mut self, sample: &LatencySample<'_>, is_racing: bool) {
        let &LatencySample { key, place, scope, waited, now, .. } = sample;
        if self.is_usual(sample) {
            sample.record();
            if !self.slow.is_empty() {
                self.slow.on_fast_response(key);
            }
        } else if !is_racing && self.slow.on_slow_response(key, place, scope, waited, now) {
            sample.record();
        }
    }

    /// The original of a hedged request was answered first, when its hedge had waited for
    /// `hedge_waited`.
    pub fn on_original_won(&mut self, sample: &LatencySample<'_>, hedge_waited: Duration) {
        let &LatencySample { key, place, scope, waited, now, .. } = sample;
        let usual = sample.baseline.bounds(self.limits, self.unlearned);
        if waited <= usual.stall {
            return;
        }
        let is_usual = if hedge_waited >= usual.nonrepeatable {
            self.slow.on_verified(key, waited, now)
        } else {
            self.slow.on_slow_response(key, place, scope, waited, now)
        };
        if is_usual {
            sample.record();
        }
    }

    /// The hedge was answered first. Returns whether that proves the other endpoint slow: not if
    /// the hedge was slow as well.
    pub fn on_hedge_won(&mut self, sample: &LatencySample<'_>) -> bool {
        if self.is_usual(sample) {
            self.slow.on_refuted(sample.key, sample.now);
            return true;
        }
        if self.slow.on_verified(sample.key, sample.waited, sample.now) {
            sample.record();
        }
        false
    }

    /// Removes entries that have expired.
    pub fn remove_expired(&mut self, now: Instant) {
        if !self.slow.is_empty() {
            self.slow.remove_expired(now);
        }
    }

    fn is_usual(&self, sample: &LatencySample<'_>) -> bool {
        let stall = || sample.baseline.bounds(self.limits, self.unlearned).stall;
        // Nearly every response ends the question here.
        sample.waited <= self.limits.floor || sample.waited <= stall()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::model::id::EndpointId;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn warm_baseline() -> LatencyBaseline {
        let baseline = LatencyBaseline::default();
        (1..1_000).for_each(|n| baseline.record(ms(3), 1_000 * n));
        baseline
    }

    fn latency() -> PoolLatency {
        let unlearned = ms(500);
        PoolLatency { limits: StallBounds::default(), unlearned, slow: SlowRequests::default() }
    }

    fn sample(baseline: &LatencyBaseline, key: u64, waited: Duration) -> LatencySample<'_> {
        LatencySample {
            baseline,
            key: RequestKey::from_value(key),
            place: AttemptPlace { endpoint: EndpointId::new(1, 0), zone: 0 },
            scope: ComparisonScope::OtherZone,
            waited,
            now: Instant::now(),
            now_us: 2_000_000 + key * 200_000,
        }
    }

    fn stall(latency: &PoolLatency, baseline: &LatencyBaseline, key: u64) -> Duration {
        latency.bounds(baseline, RequestKey::from_value(key), Instant::now()).stall
    }

    #[test]
    fn slow_endpoint_does_not_raise_the_bounds() {
        let (mut latency, baseline) = (latency(), warm_baseline());
        for n in 0..1_000 {
            // The original takes 800 ms, the hedge 3 ms.
            let hedge = sample(&baseline, n, ms(3));
            latency.on_response(&hedge, true);
            assert!(latency.on_hedge_won(&hedge), "the other endpoint is slow");
        }
        assert_eq!(stall(&latency, &baseline, 1), ms(50));
    }

    #[test]
    fn one_slow_url_leaves_the_bounds_of_others() {
        let (mut latency, baseline) = (latency(), warm_baseline());
        let original = sample(&baseline, 1, ms(2_000));
        latency.on_response(&original, true);
        latency.on_original_won(&original, ms(1_950));
        for _ in 0..1_000 {
            latency.on_response(&original, false);
        }
        assert_eq!(stall(&latency, &baseline, 1), ms(6_000));
        assert_eq!(stall(&latency, &baseline, 2), ms(50));
    }

    #[test]
    fn pool_that_is_slower_everywhere_raises_the_bounds() {
        let (mut latency, baseline) = (latency(), warm_baseline());
        for n in 0..20 {
            latency.on_original_won(&sample(&baseline, n, ms(300)), ms(250));
        }
        assert!(stall(&latency, &baseline, 99) >= ms(900));
    }

    #[test]
    fn slow_hedge_is_no_evidence_against_the_other_endpoint() {
        let (mut latency, baseline) = (latency(), warm_baseline());
        assert!(!latency.on_hedge_won(&sample(&baseline, 1, ms(2_000))));
        assert_eq!(stall(&latency, &baseline, 1), ms(6_000));
    }

    #[test]
    fn response_just_after_the_hedge_proves_nothing() {
        let (mut latency, baseline) = (latency(), warm_baseline());
        latency.on_original_won(&sample(&baseline, 1, ms(51)), ms(1));
        assert_eq!(stall(&latency, &baseline, 1), ms(50), "not known to be slow everywhere");
        assert!(latency.place_to_avoid(RequestKey::from_value(1), Instant::now()).is_some());
    }
}

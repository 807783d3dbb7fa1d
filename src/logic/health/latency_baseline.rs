//! The usual latencies of a pool in one region, and the bounds beyond which a waiting request is
//! evidence.
//!
//! All workers share one baseline. It begins with the round trips of probes, so that the first
//! request is hedged in time at any rate. A slow response is added only if its latency was usual,
//! which [`super::super::request::slow_requests`] decides by comparison with another endpoint. So
//! the failure that the bounds protect from does not raise them.

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Relaxed},
};
use std::time::Duration;

use crate::logic::model::topology::StallBounds;

/// The number of samples from which on probes are ignored.
const MIN_SAMPLES: u32 = 64;

/// At this many samples all counts are halved.
const MAX_SAMPLES: u32 = 16_384;

/// All counts are halved at this interval: the baseline follows a pool that becomes faster.
const HALVING_INTERVAL_US: u64 = 10_000_000;

/// The percentiles are computed at this interval, or earlier after [`MIN_SAMPLES`] samples.
const UPDATE_INTERVAL_US: u64 = 100_000;

/// Four buckets per octave of microseconds, up to more than an hour.
const BUCKETS: usize = 128;

/// How many times longer than the 99.9th percentile a stalled request waits.
const STALL_MULTIPLIER: u64 = 3;

/// How many times longer than the 99th percentile a slow request waits.
const SLOW_MULTIPLIER: u64 = 12;

/// The ratio of the slow bound to the unlearned stall bound while there are few samples.
const UNLEARNED_SLOW_MULTIPLIER: u64 = 4;

/// The weight of a new probe that is slower than those before it; a faster one counts at once.
const PROBE_RISE: u64 = 16;

/// Recent latencies as counts in logarithmic buckets (relative error at most 19 %), with their
/// percentiles. Updated without a lock; a sample that is lost to a race does not matter.
#[derive(Debug)]
pub struct LatencyBaseline {
    counts: [AtomicU32; BUCKETS],
    total: AtomicU32,
    /// There have been [`MIN_SAMPLES`] samples.
    is_learned: AtomicBool,
    /// The percentiles in microseconds; zero before the first sample.
    p99_us: AtomicU64,
    p999_us: AtomicU64,
    /// The usual round trip of probes in microseconds; zero before the first one.
    probe_us: AtomicU64,
    /// Microseconds since the process epoch.
    updated_us: AtomicU64,
    halved_us: AtomicU64,
}

/// The bounds on the wait for a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyBounds {
    /// A request that waits longer is stalled: another endpoint may be tried beside this one.
    pub stall: Duration,
    /// A request that waits longer counts as failed; at least `stall`.
    pub slow: Duration,
    /// The age of an endpoint's oldest unanswered request from which on requests that must not run
    /// twice avoid the endpoint: few responses take as long.
    pub nonrepeatable: Duration,
}

impl LatencyBounds {
    /// The bounds for a request whose usual latency is longer.
    pub fn extended_to(self, usual: Option<Duration>) -> Self {
        let Some(bound) = usual else { return self };
        Self { stall: self.stall.max(bound), slow: self.slow.max(bound), ..self }
    }
}

impl Default for LatencyBaseline {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU32::new(0)),
            total: AtomicU32::new(0),
            is_learned: AtomicBool::new(false),
            p99_us: AtomicU64::new(0),
            p999_us: AtomicU64::new(0),
            probe_us: AtomicU64::new(0),
            updated_us: AtomicU64::new(0),
            halved_us: AtomicU64::new(0),
        }
    }
}

impl LatencyBaseline {
    /// The bounds: three times the 99.9th percentile (stall) and twelve times the 99th (slow),
    /// between `limits`. Without a sample the stall bound is `unlearned`. While there are few
    /// samples, which may all be probes, the other bounds are not below their values without a
    /// sample.
    pub fn bounds(&self, limits: StallBounds, unlearned: Duration) -> LatencyBounds {
        let us = |duration: Duration| duration.as_micros() as u64;
        let (floor_us, ceiling_us, unlearned_us) =
            (us(limits.floor), us(limits.ceiling), us(unlearned));
        let (p99_us, p999_us) = (self.p99_us.load(Relaxed), self.p999_us.load(Relaxed));
        let stall_us = if p999_us == 0 { unlearned_us } else { STALL_MULTIPLIER * p999_us };
        let learned_slow_us = SLOW_MULTIPLIER * p99_us;
        let (slow_us, late_us) = if self.is_learned.load(Relaxed) {
            (learned_slow_us, p999_us)
        } else {
            let slow_us = learned_slow_us.max(UNLEARNED_SLOW_MULTIPLIER * unlearned_us);
            (slow_us, p999_us.max(unlearned_us / STALL_MULTIPLIER))
        };
        let clamp = |bound_us: u64| Duration::from_micros(bound_us.max(floor_us).min(ceiling_us));
        LatencyBounds {
            stall: clamp(stall_us),
            slow: clamp(slow_us.max(stall_us)),
            nonrepeatable: Duration::from_micros(late_us.min(ceiling_us)),
        }
    }

    /// The 99.9th percentile; `None` before the first sample.
    pub fn p999(&self) -> Option<Duration> {
        let p999_us = self.p999_us.load(Relaxed);
        (p999_us > 0).then(|| Duration::from_micros(p999_us))
    }

    /// Adds the time that one request waited for its response head.
    pub fn record(&self, latency: Duration, now_us: u64) {
        self.counts[bucket(latency)].fetch_add(1, Relaxed);
        let total = self.total.fetch_add(1, Relaxed) + 1;
        let updated_us = self.updated_us.load(Relaxed);
        let is_due = total.is_multiple_of(MIN_SAMPLES)
            || now_us.saturating_sub(updated_us) >= UPDATE_INTERVAL_US;
        if is_due && claim(&self.updated_us, updated_us, now_us) {
            self.update(now_us);
        }
    }

    /// Adds the duration of a probe that passed. It has an effect while there are few requests.
    pub fn record_probe(&self, latency: Duration) {
        let total = self.total.load(Relaxed);
        if total >= MIN_SAMPLES {
            return;
        }
        let (new_us, old_us) = ((latency.as_micros() as u64).max(1), self.probe_us.load(Relaxed));
        let usual_us = if old_us == 0 || new_us < old_us {
            new_us
        } else {
            old_us + (new_us - old_us) / PROBE_RISE
        };
        self.probe_us.store(usual_us, Relaxed);
        self.compute_percentiles(total);
    }

    /// Imports the 99.9th percentile that another process has learned.
    pub fn import(&self, p999: Duration) {
        let p999_us = p999.as_micros() as u64;
        if self.total.load(Relaxed) == 0 && p999_us > 0 {
            self.probe_us.store(p999_us, Relaxed);
            self.compute_percentiles(0);
        }
    }

    fn update(&self, now_us: u64) {
        let halved_us = self.halved_us.load(Relaxed);
        let is_old = now_us.saturating_sub(halved_us) >= HALVING_INTERVAL_US;
        let is_full = self.total.load(Relaxed) >= MAX_SAMPLES;
        if (is_old || is_full) && claim(&self.halved_us, halved_us, now_us) {
            self.halve();
        }
        self.compute_percentiles(self.total.load(Relaxed));
    }

    fn halve(&self) {
        let halve = |count: &AtomicU32| {
            let half = count.load(Relaxed) / 2;
            count.store(half, Relaxed);
            half
        };
        self.total.store(self.counts.iter().map(halve).sum(), Relaxed);
    }

    fn compute_percentiles(&self, total: u32) {
        let is_learned = total >= MIN_SAMPLES;
        if is_learned {
            self.is_learned.store(true, Relaxed);
        }
        let probe_us = if is_learned { 0 } else { self.probe_us.load(Relaxed) };
        for (percentile_us, share) in [(&self.p99_us, 0.99), (&self.p999_us, 0.999)] {
            let value_us = self.quantile_us(total, share).max(probe_us);
            if value_us > 0 {
                percentile_us.store(value_us, Relaxed);
            }
        }
    }

    /// Zero without a sample.
    fn quantile_us(&self, total: u32, share: f64) -> u64 {
        let rank = (f64::from(total) * share).ceil() as u32;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count.load(Relaxed);
            if seen >= rank && seen > 0 {
                return upper_bound_us(index);
            }
        }
        0
    }
}

/// Replaces `old`; returns whether this caller did it.
fn claim(time_us: &AtomicU64, old: u64, new: u64) -> bool {
    time_us.compare_exchange(old, new, AcqRel, Relaxed).is_ok()
}

fn bucket(latency: Duration) -> usize {
    let us = (latency.as_micros() as u64).max(4);
    let octave = us.ilog2() as usize;
    let quarter = ((us >> (octave - 2)) & 3) as usize;
    ((octave - 2) * 4 + quarter).min(BUCKETS - 1)
}

fn upper_bound_us(index: usize) -> u64 {
    let octave = index / 4 + 2;
    let quarter = (index % 4) as u64;
    (4 + quarter + 1) << (octave - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNLEARNED: Duration = Duration::from_millis(500);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn bounds(baseline: &LatencyBaseline) -> (Duration, Duration) {
        let LatencyBounds { stall, slow, .. } = baseline.bounds(StallBounds::default(), UNLEARNED);
        (stall, slow)
    }

    /// Records `count` samples, a millisecond apart.
    fn record(baseline: &LatencyBaseline, latency: Duration, count: u64, from_us: u64) -> u64 {
        (1..=count).for_each(|n| baseline.record(latency, from_us + 1_000 * n));
        from_us + 1_000 * count
    }

    #[test]
    fn latency_is_below_its_bucket_upper_bound() {
        for us in [1u64, 4, 5, 7, 8, 100, 999, 1_000, 65_535, 1_000_000, 60_000_000] {
            let upper = upper_bound_us(bucket(Duration::from_micros(us)));
            assert!(upper > us, "{us}");
            assert!(us < 8 || upper <= us * 5 / 4 + 1, "{us} {upper}");
        }
    }

    #[test]
    fn bounds_begin_with_the_round_trip_of_probes() {
        let baseline = LatencyBaseline::default();
        assert_eq!(bounds(&baseline), (UNLEARNED, 4 * UNLEARNED));
        baseline.record_probe(ms(40));
        assert_eq!(bounds(&baseline), (ms(120), 4 * UNLEARNED));
        baseline.record_probe(ms(18));
        assert_eq!(bounds(&baseline).0, ms(54), "a faster probe counts at once");
        baseline.record_probe(ms(178));
        assert_eq!(bounds(&baseline).0, ms(84), "a slower one by a sixteenth");
    }

    #[test]
    fn bounds_follow_few_requests() {
        let baseline = LatencyBaseline::default();
        baseline.record_probe(ms(1));
        baseline.record(ms(100), 1_000_000);
        let (stall, slow) = bounds(&baseline);
        assert!(stall >= ms(300) && stall < ms(400), "{stall:?}");
        assert_eq!(slow, 4 * UNLEARNED, "they do not say what is slow");
        record(&baseline, ms(100), 64, 1_000_000);
        let (_, slow) = bounds(&baseline);
        assert!(slow >= ms(1_200) && slow < ms(1_600), "{slow:?}");
    }

    #[test]
    fn slow_bound_with_long_tail_is_at_least_stall_bound() {
        let baseline = LatencyBaseline::default();
        let mut now_us = 1;
        for _ in 0..50 {
            now_us = record(&baseline, ms(10), 199, now_us);
            now_us = record(&baseline, ms(1_000), 1, now_us);
        }
        let (stall, slow) = bounds(&baseline);
        assert!(stall >= ms(3_000), "{stall:?}");
        assert_eq!(slow, stall);
    }

    #[test]
    fn bounds_respect_the_configured_limits() {
        let baseline = LatencyBaseline::default();
        record(&baseline, ms(10_000), 1_000, 1);
        assert_eq!(bounds(&baseline), (ms(5_000), ms(5_000)));
        let limits = StallBounds { floor: ms(1), ceiling: ms(60_000) };
        let LatencyBounds { stall, slow, .. } = baseline.bounds(limits, UNLEARNED);
        assert!(stall >= ms(30_000) && slow == ms(60_000), "{stall:?} {slow:?}");
    }

    #[test]
    fn baseline_follows_a_pool_that_becomes_faster() {
        let baseline = LatencyBaseline::default();
        let now_us = record(&baseline, ms(1_000), 20_000, 1);
        record(&baseline, ms(1), 120_000, now_us);
        assert_eq!(bounds(&baseline), (ms(50), ms(50)));
    }

    #[test]
    fn percentile_is_taken_over_from_another_process() {
        let (old, new) = (LatencyBaseline::default(), LatencyBaseline::default());
        assert_eq!(old.p999(), None);
        record(&old, ms(100), 1_000, 1);
        let p999 = old.p999().expect("it has samples");
        new.import(p999);
        assert_eq!(new.p999(), Some(p999));
        record(&new, ms(1), 1_000, 1);
        new.import(ms(700));
        assert_eq!(bounds(&new), (ms(50), ms(50)), "own samples are better");
    }

    #[test]
    fn known_slow_request_extends_the_bounds() {
        let baseline = LatencyBaseline::default();
        baseline.record_probe(ms(1));
        let usual = baseline.bounds(StallBounds::default(), UNLEARNED);
        assert_eq!(usual.extended_to(None), usual);
        let extended = usual.extended_to(Some(ms(6_000)));
        assert_eq!((extended.stall, extended.slow), (ms(6_000), ms(6_000)));
        assert_eq!(extended.nonrepeatable, usual.nonrepeatable);
    }
}

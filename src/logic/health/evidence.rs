//! Evidence for and against an endpoint, and the bound after which a waiting request is evidence.

use std::time::Duration;

use crate::logic::model::outcome::Failure;
use crate::logic::model::topology::StallBounds;

/// One piece of evidence, as input of the verdict machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    Pass,
    /// A strike that may be a coincidence: makes a suspect, never a verdict.
    Soft(Failure),
    /// A strike that counts in full.
    Firm(Failure),
}

impl Evidence {
    /// The evidence that a failure of live traffic is.
    pub fn from_traffic(failure: Failure) -> Self {
        if failure.is_soft() { Self::Soft(failure) } else { Self::Firm(failure) }
    }
}

/// Samples that the bounds need before they follow the pool's own distribution.
const MIN_SAMPLES: u32 = 64;

/// At this many samples all counts are halved: a window of the last few thousand requests.
const MAX_WINDOW_SAMPLES: u32 = 16_384;

/// Four buckets an octave of microseconds, up to over an hour.
const BUCKETS: usize = 128;

/// The recent latencies of a pool, as counts in logarithmic buckets (relative error at most 19 %).
///
/// Gives two bounds, both between the pool's [`StallBounds`]. The stall bound, three times the
/// 99.9th percentile: a request that waits longer starts probes. The slow bound, twelve times
/// the 99th percentile: one that waits longer counts as failed.
#[derive(Clone, Debug)]
pub struct LatencyWindow {
    counts: [u32; BUCKETS],
    total: u32,
    samples_since_update: u32,
    /// The bounds before they are clamped to those of the pool.
    stall: Duration,
    slow: Duration,
    has_learned_bounds: bool,
    bounds: StallBounds,
}

/// How many times longer than the 99.9th percentile a stalled request waits.
const STALL_MULTIPLIER: u32 = 3;

/// The ratio of the slow to the stall bound while the pool's latencies are unknown: about what a
/// short tail gives.
const UNLEARNED_SLOW_MULTIPLIER: u32 = 4;

impl LatencyWindow {
    /// An empty window. Until it has seen enough requests the stall bound is `unlearned`, and the
    /// slow bound four times that.
    pub fn new(unlearned: Duration, bounds: StallBounds) -> Self {
        Self {
            counts: [0; BUCKETS],
            total: 0,
            samples_since_update: 0,
            stall: unlearned,
            slow: UNLEARNED_SLOW_MULTIPLIER * unlearned,
            has_learned_bounds: false,
            bounds,
        }
    }

    /// Applies a new configuration; learned bounds stay.
    pub fn configure(&mut self, unlearned: Duration, bounds: StallBounds) {
        self.bounds = bounds;
        if !self.has_learned_bounds {
            (self.stall, self.slow) = (unlearned, UNLEARNED_SLOW_MULTIPLIER * unlearned);
        }
    }

    /// Adds the time that one request waited for its response head.
    pub fn record(&mut self, latency: Duration) {
        self.counts[bucket(latency)] += 1;
        self.total += 1;
        self.samples_since_update += 1;
        if self.total >= MAX_WINDOW_SAMPLES {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
        // The percentile moves slowly; computing it for each request would cost more than it gains.
        if self.total >= MIN_SAMPLES && self.samples_since_update >= MIN_SAMPLES {
            self.samples_since_update = 0;
            self.has_learned_bounds = true;
            self.stall = STALL_MULTIPLIER * self.quantile(0.999);
            self.slow = 12 * self.quantile(0.99);
        }
    }

    /// The age at which a request in flight counts as stalled.
    pub fn stall_bound(&self) -> Duration {
        self.stall.max(self.bounds.floor).min(self.bounds.ceiling)
    }

    /// The age at which it counts as failed; never below [`LatencyWindow::stall_bound`].
    pub fn slow_bound(&self) -> Duration {
        self.slow.max(self.stall).max(self.bounds.floor).min(self.bounds.ceiling)
    }

    /// The age of an endpoint's oldest unanswered request from which on requests that must not run
    /// twice go elsewhere: hardly a response takes as long.
    pub fn nonrepeatable_bound(&self) -> Duration {
        (self.stall / STALL_MULTIPLIER).min(self.bounds.ceiling)
    }

    fn quantile(&self, q: f64) -> Duration {
        let rank = (f64::from(self.total) * q).ceil() as u32;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound(index);
            }
        }
        upper_bound(BUCKETS - 1)
    }
}

fn bucket(latency: Duration) -> usize {
    let us = (latency.as_micros() as u64).max(4);
    let octave = us.ilog2() as usize;
    let quarter = ((us >> (octave - 2)) & 3) as usize;
    ((octave - 2) * 4 + quarter).min(BUCKETS - 1)
}

fn upper_bound(index: usize) -> Duration {
    let octave = index / 4 + 2;
    let quarter = (index % 4) as u64;
    Duration::from_micros((4 + quarter + 1) << (octave - 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_is_below_its_bucket_upper_bound() {
        for us in [1u64, 4, 5, 7, 8, 100, 999, 1_000, 65_535, 1_000_000, 60_000_000] {
            let latency = Duration::from_micros(us);
            let upper = upper_bound(bucket(latency));
            assert!(upper > latency, "{us}");
            assert!(
                us < 8 || upper <= latency * 5 / 4 + Duration::from_micros(1),
                "{us} {upper:?}"
            );
        }
    }

    const FLOOR: Duration = Duration::from_millis(50);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn window() -> LatencyWindow {
        LatencyWindow::new(ms(500), StallBounds::default())
    }

    #[test]
    fn bounds_are_learned_and_have_a_floor() {
        let mut window = window();
        assert_eq!((window.stall_bound(), window.slow_bound()), (ms(500), ms(2_000)));
        for _ in 0..1_000 {
            window.record(ms(1));
        }
        assert_eq!((window.stall_bound(), window.slow_bound()), (FLOOR, FLOOR));
        for _ in 0..1_000 {
            window.record(ms(100));
        }
        let (stall, slow) = (window.stall_bound(), window.slow_bound());
        assert!(stall >= ms(300) && stall < ms(400), "{stall:?}");
        assert!(slow >= ms(1_200) && slow < ms(1_600), "{slow:?}");
    }

    #[test]
    fn slow_bound_with_long_tail_is_at_least_stall_bound() {
        let mut window = window();
        for index in 0..10_000 {
            window.record(if index % 200 == 0 { ms(1_000) } else { ms(10) });
        }
        assert!(window.stall_bound() >= ms(3_000), "{:?}", window.stall_bound());
        assert_eq!(window.slow_bound(), window.stall_bound());
    }

    #[test]
    fn bounds_respect_ceiling_after_reconfiguration() {
        let mut window = window();
        for _ in 0..1_000 {
            window.record(ms(10_000));
        }
        assert_eq!((window.stall_bound(), window.slow_bound()), (ms(5_000), ms(5_000)));
        window.configure(ms(500), StallBounds { floor: ms(1), ceiling: ms(60_000) });
        assert!(window.stall_bound() >= ms(30_000) && window.slow_bound() == ms(60_000));
    }

    #[test]
    fn old_latencies_decay_from_window() {
        let mut window = window();
        for _ in 0..20_000 {
            window.record(Duration::from_secs(1));
        }
        for _ in 0..200_000 {
            window.record(ms(1));
        }
        assert_eq!(window.stall_bound(), FLOOR);
    }
}

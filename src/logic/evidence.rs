//! Evidence for and against an endpoint, and the bound after which a waiting request is evidence.

use std::time::Duration;

use super::outcome::Failure;
use super::topology::StallBounds;

/// One piece of evidence, as the verdict machine weighs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A probe passed.
    Pass,
    /// A strike that may be a coincidence: makes a suspect, never a verdict.
    Soft(Failure),
    /// A strike that counts in full.
    Firm(Failure),
}

impl Evidence {
    /// What a failure of live traffic weighs.
    #[must_use]
    pub fn from_traffic(failure: Failure) -> Self {
        if failure.is_soft() { Self::Soft(failure) } else { Self::Firm(failure) }
    }
}

/// Samples before the pool's own distribution is believed.
const ENOUGH_SAMPLES: u32 = 64;

/// At this many samples all counts are halved: a window of the last few thousand requests.
const WINDOW_SAMPLES: u32 = 16_384;

/// Four buckets an octave of microseconds, up to over an hour.
const BUCKETS: usize = 128;

/// The recent latencies of a pool, as counts in logarithmic buckets (relative error at most 19 %).
///
/// Gives two bounds, both between the pool's [`StallBounds`]. The stall bound, three times the 99.9th
/// percentile: a request that waits longer is a reason to look. The slow bound, twelve times the
/// 99th percentile: one that waits longer is as good as failed.
#[derive(Clone, Debug)]
pub struct LatencyWindow {
    counts: [u32; BUCKETS],
    total: u32,
    stale: u32,
    /// Before they are brought between the pool's bounds.
    stall: Duration,
    slow: Duration,
    is_learnt: bool,
    bounds: StallBounds,
}

/// How many times longer than the 99.9th percentile a stalled request waits.
const STALL_TIMES: u32 = 3;

/// How many stalls make it slow, while nothing is known of the pool: about the ratio of the bounds
/// where the tail of the latencies is short.
const UNLEARNT_SLOW: u32 = 4;

impl LatencyWindow {
    /// An empty window. Until it has seen enough requests the stall bound is `unlearned`, and the
    /// slow bound four times that.
    #[must_use]
    pub fn new(unlearned: Duration, bounds: StallBounds) -> Self {
        Self {
            counts: [0; BUCKETS],
            total: 0,
            stale: 0,
            stall: unlearned,
            slow: UNLEARNT_SLOW * unlearned,
            is_learnt: false,
            bounds,
        }
    }

    /// Obeys a new configuration; what was learnt stays.
    pub fn configure(&mut self, unlearned: Duration, bounds: StallBounds) {
        self.bounds = bounds;
        if !self.is_learnt {
            (self.stall, self.slow) = (unlearned, UNLEARNT_SLOW * unlearned);
        }
    }

    /// Adds the time that one request waited for its response head.
    pub fn record(&mut self, latency: Duration) {
        self.counts[bucket(latency)] += 1;
        self.total += 1;
        self.stale += 1;
        if self.total >= WINDOW_SAMPLES {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
        // The percentile moves slowly; walking the buckets each time would cost more than it tells.
        if self.total >= ENOUGH_SAMPLES && self.stale >= ENOUGH_SAMPLES {
            self.stale = 0;
            self.is_learnt = true;
            self.stall = STALL_TIMES * self.quantile(0.999);
            self.slow = 12 * self.quantile(0.99);
        }
    }

    /// The age at which a request in flight counts as stalled.
    #[must_use]
    pub fn stall_bound(&self) -> Duration {
        self.stall.max(self.bounds.floor).min(self.bounds.ceiling)
    }

    /// The age at which it counts as failed; never below [`LatencyWindow::stall_bound`].
    #[must_use]
    pub fn slow_bound(&self) -> Duration {
        self.slow.max(self.stall).max(self.bounds.floor).min(self.bounds.ceiling)
    }

    /// The age of the oldest unanswered request of an endpoint at which it gets none that must not run
    /// twice, while there is another: hardly an answer takes as long.
    #[must_use]
    pub fn doubt_bound(&self) -> Duration {
        (self.stall / STALL_TIMES).min(self.bounds.ceiling)
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
    fn every_latency_lies_below_its_buckets_upper_bound() {
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
    fn bounds_are_learnt_and_have_a_floor() {
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
    fn a_long_tail_makes_slow_no_earlier_than_stalled() {
        let mut window = window();
        for index in 0..10_000 {
            window.record(if index % 200 == 0 { ms(1_000) } else { ms(10) });
        }
        assert!(window.stall_bound() >= ms(3_000), "{:?}", window.stall_bound());
        assert_eq!(window.slow_bound(), window.stall_bound());
    }

    #[test]
    fn both_bounds_have_a_ceiling_that_a_new_configuration_moves() {
        let mut window = window();
        for _ in 0..1_000 {
            window.record(ms(10_000));
        }
        assert_eq!((window.stall_bound(), window.slow_bound()), (ms(5_000), ms(5_000)));
        window.configure(ms(500), StallBounds { floor: ms(1), ceiling: ms(60_000) });
        assert!(window.stall_bound() >= ms(30_000) && window.slow_bound() == ms(60_000));
    }

    #[test]
    fn old_latencies_are_forgotten() {
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

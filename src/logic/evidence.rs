//! Evidence for and against an endpoint, and the bound after which a waiting request is evidence.

use std::time::Duration;

use super::outcome::Failure;

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

/// A request that waits longer than this is never evidence before, however fast the pool.
pub const STALL_FLOOR: Duration = Duration::from_millis(50);

/// Samples before the pool's own distribution is believed.
const ENOUGH_SAMPLES: u32 = 64;

/// At this many samples all counts are halved: a window of the last few thousand requests.
const WINDOW_SAMPLES: u32 = 16_384;

/// Four buckets an octave of microseconds, up to over an hour.
const BUCKETS: usize = 128;

/// The recent latencies of a pool, as counts in logarithmic buckets (relative error at most 19 %).
///
/// Gives the stall bound: three times the 99.9th percentile, at least [`STALL_FLOOR`].
#[derive(Clone, Debug)]
pub struct LatencyWindow {
    counts: [u32; BUCKETS],
    total: u32,
    bound: Duration,
    stale: u32,
}

impl LatencyWindow {
    /// An empty window. Until it has seen enough requests the bound is `unlearned`.
    #[must_use]
    pub fn new(unlearned: Duration) -> Self {
        Self { counts: [0; BUCKETS], total: 0, bound: unlearned.max(STALL_FLOOR), stale: 0 }
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
            self.bound = (3 * self.quantile(0.999)).max(STALL_FLOOR);
        }
    }

    /// The age at which a request in flight counts as stalled.
    #[must_use]
    pub fn stall_bound(&self) -> Duration {
        self.bound
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

    #[test]
    fn bound_is_learnt_and_has_a_floor() {
        let mut window = LatencyWindow::new(Duration::from_millis(500));
        assert_eq!(window.stall_bound(), Duration::from_millis(500));
        for _ in 0..1_000 {
            window.record(Duration::from_millis(1));
        }
        assert_eq!(window.stall_bound(), STALL_FLOOR);
        for _ in 0..1_000 {
            window.record(Duration::from_millis(100));
        }
        let bound = window.stall_bound();
        assert!(bound >= Duration::from_millis(300) && bound < Duration::from_millis(400));
    }

    #[test]
    fn old_latencies_are_forgotten() {
        let mut window = LatencyWindow::new(Duration::from_millis(500));
        for _ in 0..20_000 {
            window.record(Duration::from_secs(1));
        }
        for _ in 0..200_000 {
            window.record(Duration::from_millis(1));
        }
        assert_eq!(window.stall_bound(), STALL_FLOOR);
    }
}

//! Peak EWMA of latency (Finagle, Linkerd): rises at once and falls slowly.
//!
//! A sample above the average replaces it; a lower one is weighted by the time since the last
//! sample. Without samples the average decays, so that an endpoint that was slow is tried again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Time constant of the decay (to 1/e), in microseconds.
const DECAY_US: f64 = 10_000_000.0;

/// Assumed latency of an endpoint without any sample, in microseconds.
const DEFAULT_LATENCY_US: f64 = 30_000.0;

/// Time of the last sample in units of 1024 µs (upper half), and the average in microseconds as
/// `f32` bits (lower half).
#[derive(Debug, Default)]
pub struct PeakEwma(AtomicU64);

impl PeakEwma {
    fn read(&self) -> (u32, f64) {
        let packed = self.0.load(Relaxed);
        ((packed >> 32) as u32, f64::from(f32::from_bits(packed as u32)))
    }

    /// Records a time to first byte. One of two concurrent samples may be lost.
    pub fn observe(&self, latency_us: u64, now_us: u64) {
        let now = coarse_timestamp(now_us);
        let (sampled_at, average) = self.read();
        let sample = latency_us.max(1) as f64;
        let average = if sample >= average {
            sample
        } else {
            let decay = decay_factor(sampled_at, now);
            average * decay + sample * (1.0 - decay)
        };
        let bits = u64::from((average as f32).to_bits());
        self.0.store(u64::from(now) << 32 | bits, Relaxed);
    }

    /// Expected wait behind `in_flight` requests, in microseconds. An endpoint without samples gets
    /// one request, and no others until that one is answered.
    pub fn cost(&self, in_flight: u32, now_us: u64) -> f64 {
        let (sampled_at, average) = self.read();
        let average = match (average > 0.0, in_flight) {
            (true, _) => average * decay_factor(sampled_at, coarse_timestamp(now_us)),
            (false, 0) => 0.0,
            (false, _) => DEFAULT_LATENCY_US,
        };
        average * (f64::from(in_flight) + 1.0)
    }
}

fn coarse_timestamp(us: u64) -> u32 {
    (us >> 10) as u32
}

/// The decay between two timestamps. Worker clocks differ, so `to` may be earlier.
fn decay_factor(from: u32, to: u32) -> f64 {
    let elapsed = (to.wrapping_sub(from) as i32).max(0);
    (-f64::from(elapsed) * 1_024.0 / DECAY_US).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    #[test]
    fn peak_latency_applies_at_once_and_decays_slowly() {
        let ewma = PeakEwma::default();
        ewma.observe(2 * MS, 1_000 * MS);
        assert!((ewma.cost(0, 1_000 * MS) - 2_000.0).abs() < 1.0);
        ewma.observe(50 * MS, 1_001 * MS);
        assert!((ewma.cost(0, 1_001 * MS) - 50_000.0).abs() < 50.0);
        ewma.observe(2 * MS, 2_001 * MS);
        let after = ewma.cost(0, 2_001 * MS);
        assert!((44_000.0..47_000.0).contains(&after), "{after}");
        let later = ewma.cost(0, 12_001 * MS);
        assert!((after / later - std::f64::consts::E).abs() < 0.01, "{later}");
        assert!((ewma.cost(3, 2_001 * MS) / after - 4.0).abs() < 1e-9);
    }

    #[test]
    fn unmeasured_endpoint_costs_zero_only_when_idle() {
        let ewma = PeakEwma::default();
        assert!(ewma.cost(0, MS) < 1.0);
        assert!(ewma.cost(1, MS) > DEFAULT_LATENCY_US);
    }

    #[test]
    fn cost_with_earlier_clock_does_not_decay() {
        let ewma = PeakEwma::default();
        ewma.observe(2 * MS, 5_000 * MS);
        assert!((ewma.cost(0, 4_000 * MS) - 2_000.0).abs() < 1.0);
    }
}

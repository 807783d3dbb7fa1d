//! Bounds of the detection window in closed form, for active probes alone.
//!
//! They stand beside the simulation in `predict` as a check: what is measured in the simulated
//! world must never leave them.

use std::time::Duration;

use super::outcome::Class;
use super::schedule::{BURST_GAP, BURST_PROBES, JITTER};
use super::topology::Detect;

/// The least and the most that a detection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The failure begins just before a probe starts.
    pub best: Duration,
    /// The failure begins just after a probe was answered.
    pub worst: Duration,
}

/// What one failed probe of this class costs: a round trip, or the whole timeout.
#[must_use]
pub fn probe_cost(class: Class, detect: &Detect, round_trip: Duration) -> Duration {
    match class {
        Class::Silent => detect.timeout,
        Class::Refused | Class::Reset | Class::BadStatus | Class::Tls => {
            round_trip.min(detect.timeout)
        }
    }
}

/// The worst is `interval + t + (down_after − 1) · max(fast_interval, t)`. The best is the same
/// without `interval` where an endpoint is silent; any other failure is looked at again at once.
#[must_use]
pub fn bounds(class: Class, detect: &Detect, round_trip: Duration) -> Bounds {
    let cost = probe_cost(class, detect, round_trip);
    let strikes_left = detect.down_after.max(1) - 1;
    let row = cost.max(detect.fast_interval) * strikes_left;
    let shortest = match class {
        // The jitter may shorten each fast period by a tenth.
        Class::Silent => cost.max(detect.fast_interval.mul_f64(0.9)) * strikes_left,
        // The first strike starts a burst, whose probes do not wait for each other.
        _ => cost * strikes_left.min(1),
    };
    Bounds { best: cost + shortest, worst: detect.interval + cost + row }
}

/// The part of the interval, in 0..=1, that passes from a failure to the start of the next probe
/// in all but `1 − share` of failures.
///
/// A failure falls into a period in proportion to its length, which is uniform between `1 − JITTER`
/// and 1 intervals; what is left of it then is longer than `r` with probability `E(period − r)⁺ /
/// E(period)` (the residual life of a renewal process).
#[must_use]
pub fn wait_share(share: f64) -> f64 {
    let mean = 1.0 - JITTER / 2.0;
    let beyond = (1.0 - share).clamp(0.0, 1.0) * mean;
    // Up to the shortest period all of them reach; beyond it only the longer ones do.
    let at_shortest = JITTER / 2.0;
    if beyond >= at_shortest { mean - beyond } else { 1.0 - (2.0 * JITTER * beyond).sqrt() }
}

/// What passes from the start of the first probe that meets a failure to the verdict, at most, by
/// active probes alone.
#[must_use]
pub fn confirmation(class: Class, detect: &Detect, round_trip: Duration) -> Duration {
    let cost = probe_cost(class, detect, round_trip);
    let strikes_left = detect.down_after.max(1) - 1;
    let in_a_burst = match class {
        Class::Silent => 0,
        _ => strikes_left.min(BURST_PROBES),
    };
    let burst = match in_a_burst {
        0 => Duration::ZERO,
        probes => BURST_GAP * (probes - 1) + cost,
    };
    cost + burst + cost.max(detect.fast_interval) * (strikes_left - in_a_burst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_give_the_documented_worst_cases() {
        let detect = Detect::default();
        let rtt = Duration::from_millis(1);
        let worst = |class| bounds(class, &detect, rtt).worst;
        assert_eq!(worst(Class::Refused), Duration::from_millis(1_101));
        assert_eq!(worst(Class::Silent), Duration::from_millis(2_000));
    }

    #[test]
    fn the_wait_for_the_next_probe_is_that_of_periods_drawn_one_by_one() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut waits = Vec::new();
        while waits.len() < 100_000 {
            let period = 1.0 - JITTER * rng.f64();
            // One moment in a second of time: it meets long periods more often.
            if rng.f64() < period {
                waits.push(period * rng.f64());
            }
        }
        waits.sort_by(f64::total_cmp);
        for share in [0.1, 0.5, 0.9, 0.95, 0.99, 0.999] {
            let drawn = waits[(share * waits.len() as f64) as usize];
            assert!((wait_share(share) - drawn).abs() < 0.005, "{share}: {drawn}");
        }
        assert_eq!((wait_share(0.0), wait_share(1.0)), (0.0, 1.0));
    }

    #[test]
    fn a_burst_confirms_what_answers_and_silence_waits_for_every_strike() {
        let (ms, rtt) = (Duration::from_millis, Duration::from_millis(2));
        let of = |class, down_after| {
            confirmation(class, &Detect { down_after, ..Detect::default() }, rtt)
        };
        let refused = [1, 2, 3, 4, 5].map(|down_after| of(Class::Refused, down_after));
        assert_eq!(refused, [ms(2), ms(4), ms(24), ms(44), ms(144)]);
        assert_eq!([1, 2, 3].map(|after| of(Class::Silent, after)), [500, 1_000, 1_500].map(ms));
        let detect = Detect::default();
        let worst = bounds(Class::Silent, &detect, rtt).worst;
        assert_eq!(detect.interval + of(Class::Silent, 2), worst);
    }
}

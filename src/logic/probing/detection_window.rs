//! Bounds of the detection window in closed form, for active probes alone.
//!
//! `predict` prints them beside the simulation as a check: no simulated window may leave them.

use std::time::Duration;

use super::probe_schedule::{BURST_GAP, BURST_PROBES, MAX_JITTER};
use crate::logic::model::outcome::FailureClass;
use crate::logic::model::topology::DetectionSpec;

/// The shortest and the longest detection window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectionBounds {
    /// The failure begins just before a probe starts.
    pub best: Duration,
    /// The failure begins just after a probe was answered.
    pub worst: Duration,
}

/// The duration of a failed probe of this class: a round trip, or the whole timeout.
pub fn failed_probe_duration(
    class: FailureClass,
    detect: &DetectionSpec,
    round_trip: Duration,
) -> Duration {
    match class {
        FailureClass::Silent => detect.timeout,
        FailureClass::Refused
        | FailureClass::Reset
        | FailureClass::BadStatus
        | FailureClass::Tls => round_trip.min(detect.timeout),
    }
}

/// The worst is `interval + t + (down_after − 1) · max(fast_interval, t)`. The best is the same
/// without `interval` where an endpoint is silent; any other failure starts a burst at once.
pub fn detection_bounds(
    class: FailureClass,
    detect: &DetectionSpec,
    round_trip: Duration,
) -> DetectionBounds {
    let probe_duration = failed_probe_duration(class, detect, round_trip);
    let strikes_left = detect.down_after.max(1) - 1;
    let remaining_probes = probe_duration.max(detect.fast_interval) * strikes_left;
    let shortest = match class {
        // The jitter may shorten each fast period by a tenth.
        FailureClass::Silent => {
            probe_duration.max(detect.fast_interval.mul_f64(0.9)) * strikes_left
        }
        // The first strike starts a burst, whose probes do not wait for each other.
        _ => probe_duration * strikes_left.min(1),
    };
    DetectionBounds {
        best: probe_duration + shortest,
        worst: detect.interval + probe_duration + remaining_probes,
    }
}

/// The part of the interval, in 0..=1, that passes from a failure to the start of the next probe
/// in all but `1 − share` of failures.
///
/// A failure falls into a period in proportion to its length, which is uniform between `1 −
/// MAX_JITTER` and 1 intervals; what is left of it then is longer than `r` with probability
/// `E(period − r)⁺ / E(period)` (the residual life of a renewal process).
pub fn probe_wait_quantile(share: f64) -> f64 {
    let mean = 1.0 - MAX_JITTER / 2.0;
    let beyond = (1.0 - share).clamp(0.0, 1.0) * mean;
    // Up to the shortest period all of them reach; beyond it only the longer ones do.
    let at_shortest = MAX_JITTER / 2.0;
    if beyond >= at_shortest { mean - beyond } else { 1.0 - (2.0 * MAX_JITTER * beyond).sqrt() }
}

/// The longest time from the start of the first probe that meets a failure to the verdict, by
/// active probes alone.
pub fn confirmation_time(
    class: FailureClass,
    detect: &DetectionSpec,
    round_trip: Duration,
) -> Duration {
    let probe_duration = failed_probe_duration(class, detect, round_trip);
    let strikes_left = detect.down_after.max(1) - 1;
    let burst_strikes = match class {
        FailureClass::Silent => 0,
        _ => strikes_left.min(BURST_PROBES),
    };
    let burst = match burst_strikes {
        0 => Duration::ZERO,
        probes => BURST_GAP * (probes - 1) + probe_duration,
    };
    probe_duration
        + burst
        + probe_duration.max(detect.fast_interval) * (strikes_left - burst_strikes)
}

/// The period of probes of an endpoint that is up and that live traffic confirms: as long as the
/// target allows for the slowest class of failure, and never shorter than without traffic.
pub fn traffic_confirmed_interval(detect: &DetectionSpec) -> Duration {
    let Some(target) = detect.target else { return detect.interval };
    let worst = detection_bounds(FailureClass::Silent, detect, detect.timeout).worst;
    target.saturating_sub(worst - detect.interval).max(detect.interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_detection_gives_documented_worst_cases() {
        let detect = DetectionSpec::default();
        let rtt = Duration::from_millis(1);
        let worst = |class| detection_bounds(class, &detect, rtt).worst;
        assert_eq!(worst(FailureClass::Refused), Duration::from_millis(1_101));
        assert_eq!(worst(FailureClass::Silent), Duration::from_millis(2_000));
    }

    #[test]
    fn probe_wait_quantile_matches_simulated_periods() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut waits = Vec::new();
        while waits.len() < 100_000 {
            let period = 1.0 - MAX_JITTER * rng.f64();
            // A random moment falls into long periods more often.
            if rng.f64() < period {
                waits.push(period * rng.f64());
            }
        }
        waits.sort_by(f64::total_cmp);
        for share in [0.1, 0.5, 0.9, 0.95, 0.99, 0.999] {
            let drawn = waits[(share * waits.len() as f64) as usize];
            assert!((probe_wait_quantile(share) - drawn).abs() < 0.005, "{share}: {drawn}");
        }
        assert_eq!((probe_wait_quantile(0.0), probe_wait_quantile(1.0)), (0.0, 1.0));
    }

    #[test]
    fn burst_confirms_refusal_but_silence_waits_for_timeouts() {
        let (ms, rtt) = (Duration::from_millis, Duration::from_millis(2));
        let of = |class, down_after| {
            confirmation_time(class, &DetectionSpec { down_after, ..DetectionSpec::default() }, rtt)
        };
        let refused = [1, 2, 3, 4, 5].map(|down_after| of(FailureClass::Refused, down_after));
        assert_eq!(refused, [ms(2), ms(4), ms(24), ms(44), ms(144)]);
        assert_eq!(
            [1, 2, 3].map(|after| of(FailureClass::Silent, after)),
            [500, 1_000, 1_500].map(ms)
        );
        let detect = DetectionSpec::default();
        let worst = detection_bounds(FailureClass::Silent, &detect, rtt).worst;
        assert_eq!(detect.interval + of(FailureClass::Silent, 2), worst);
    }

    #[test]
    fn traffic_confirmed_interval_stays_within_target() {
        let ms = Duration::from_millis;
        let detect = |target| DetectionSpec { target, ..DetectionSpec::default() };
        assert_eq!(traffic_confirmed_interval(&detect(None)), ms(1_000));
        assert_eq!(
            traffic_confirmed_interval(&detect(Some(ms(1_500)))),
            ms(1_000),
            "never shorter"
        );
        let stretched = traffic_confirmed_interval(&detect(Some(ms(5_000))));
        assert_eq!(stretched, ms(4_000));
        let slow = DetectionSpec { interval: stretched, ..DetectionSpec::default() };
        let worst = detection_bounds(FailureClass::Silent, &slow, ms(500)).worst;
        assert_eq!(worst, ms(5_000));
    }
}

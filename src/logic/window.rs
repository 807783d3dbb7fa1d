//! Bounds of the detection window in closed form, for active probes alone.
//!
//! They stand beside the simulation in `predict` as a check: what is measured in the simulated
//! world must never leave them.

use std::time::Duration;

use super::outcome::Class;
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
}

//! What a pool is asked for: requests a second, and how long they stay.

use std::time::Duration;

/// Older arrivals count less and less: to a third within this time.
const MEMORY: Duration = Duration::from_secs(1);

/// Less than this many requests a second fill nothing.
const LEAST_RPS: f64 = 1.0;

/// Requests to one zone of a pool, smoothed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flow {
    /// Requests that had begun when it was last looked at; `None` before that.
    begun: Option<u64>,
    /// The first rate is taken as it is.
    is_known: bool,
    rate_rps: f64,
    in_flight: f64,
}

impl Flow {
    /// So much, as an operator says it who has no instance to ask: requests a second, each of which
    /// stays for `stay`.
    #[must_use]
    pub fn stated(rate_rps: f64, stay: Duration) -> Self {
        let in_flight = rate_rps * stay.as_secs_f64();
        Self { begun: None, is_known: true, rate_rps, in_flight }
    }

    /// `begun` requests have begun in all, of which `in_flight` go on; the last look was `passed` ago.
    pub fn look(&mut self, begun: u64, in_flight: u64, passed: Duration) {
        let Some(before) = self.begun.replace(begun) else { return };
        let passed_s = passed.as_secs_f64();
        if passed_s <= 0.0 {
            return;
        }
        // What is counted at endpoints that are gone is gone too.
        let rate_rps = begun.saturating_sub(before) as f64 / passed_s;
        let new = if self.is_known { 1.0 - (-passed_s / MEMORY.as_secs_f64()).exp() } else { 1.0 };
        self.rate_rps += (rate_rps - self.rate_rps) * new;
        self.in_flight += (in_flight as f64 - self.in_flight) * new;
        self.is_known = true;
    }

    /// Requests a second.
    #[must_use]
    pub fn rate_rps(&self) -> f64 {
        self.rate_rps
    }
}

/// Requests to all zones of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    rate_rps: f64,
    in_flight: f64,
}

impl Demand {
    /// All flows together.
    #[must_use]
    pub fn of<'f>(flows: impl Iterator<Item = &'f Flow>) -> Self {
        flows.fold(Self::default(), |sum, flow| Self {
            rate_rps: sum.rate_rps + flow.rate_rps,
            in_flight: sum.in_flight + flow.in_flight,
        })
    }

    /// Requests a second; `None` if there are hardly any.
    #[must_use]
    pub fn rate_rps(&self) -> Option<f64> {
        Some(self.rate_rps).filter(|rate| *rate >= LEAST_RPS)
    }

    /// How long a request stays, in seconds, by Little's law: at the endpoints of `flow` if it tells,
    /// or else at those of the pool.
    #[must_use]
    pub fn stay_s(&self, flow: &Flow) -> f64 {
        if flow.rate_rps >= LEAST_RPS {
            return flow.in_flight / flow.rate_rps;
        }
        self.rate_rps().map_or(0.0, |rate_rps| self.in_flight / rate_rps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_known_with_the_second_look_and_follows_within_seconds() {
        let step = Duration::from_millis(250);
        let mut flow = Flow::default();
        flow.look(1_000, 5, Duration::ZERO);
        assert_eq!(Demand::of([flow].iter()).rate_rps(), None);
        flow.look(1_025, 5, step);
        assert_eq!(flow.rate_rps(), 100.0);
        let mut begun = 1_025;
        for _ in 0..16 {
            begun += 50;
            flow.look(begun, 20, step);
        }
        assert!((195.0..200.0).contains(&flow.rate_rps()), "{flow:?}");
        let demand = Demand::of([flow, Flow::default()].iter());
        assert!((demand.stay_s(&flow) - 0.1).abs() < 0.01);
        assert_eq!(demand.stay_s(&Flow::default()), demand.stay_s(&flow), "nothing else is known");
        flow.look(10, 0, step);
        assert!(flow.rate_rps() >= 0.0, "endpoints have gone");
    }
}

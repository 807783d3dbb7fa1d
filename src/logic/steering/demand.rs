//! What a pool is asked for: requests a second, and how long they stay.

use std::time::Duration;

/// Older arrivals count less and less: to a third within this time.
const SMOOTHING: Duration = Duration::from_secs(1);

/// Less than this many requests a second fill nothing.
const MIN_RATE_RPS: f64 = 1.0;

/// Requests to one zone of a pool, smoothed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ZoneLoad {
    /// Requests that had begun when it was last looked at; `None` before that.
    total_requests: Option<u64>,
    /// The first rate is taken as it is.
    has_rate: bool,
    rate_rps: f64,
    in_flight: f64,
}

impl ZoneLoad {
    /// So much, as an operator says it who has no instance to ask: requests a second, each of which
    /// stays for `stay`.
    pub fn declared(rate_rps: f64, residence: Duration) -> Self {
        let in_flight = rate_rps * residence.as_secs_f64();
        Self { total_requests: None, has_rate: true, rate_rps, in_flight }
    }

    /// `begun` requests have begun in all, of which `in_flight` go on; the last look was `passed` ago.
    pub fn update(&mut self, total_requests: u64, in_flight: u64, elapsed: Duration) {
        let Some(before) = self.total_requests.replace(total_requests) else { return };
        let passed_s = elapsed.as_secs_f64();
        if passed_s <= 0.0 {
            return;
        }
        // What is counted at endpoints that are gone is gone too.
        let rate_rps = total_requests.saturating_sub(before) as f64 / passed_s;
        let smoothing_factor =
            if self.has_rate { 1.0 - (-passed_s / SMOOTHING.as_secs_f64()).exp() } else { 1.0 };
        self.rate_rps += (rate_rps - self.rate_rps) * smoothing_factor;
        self.in_flight += (in_flight as f64 - self.in_flight) * smoothing_factor;
        self.has_rate = true;
    }

    pub fn rate_rps(&self) -> f64 {
        self.rate_rps
    }
}

/// Requests to all zones of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PoolDemand {
    rate_rps: f64,
    in_flight: f64,
}

impl PoolDemand {
    pub fn sum<'f>(loads: impl Iterator<Item = &'f ZoneLoad>) -> Self {
        loads.fold(Self::default(), |sum, flow| Self {
            rate_rps: sum.rate_rps + flow.rate_rps,
            in_flight: sum.in_flight + flow.in_flight,
        })
    }

    /// Requests a second; `None` if there are hardly any.
    pub fn rate_rps(&self) -> Option<f64> {
        Some(self.rate_rps).filter(|rate| *rate >= MIN_RATE_RPS)
    }

    /// How long a request stays, in seconds, by Little's law: at the endpoints of `flow` if it tells,
    /// or else at those of the pool.
    pub fn residence_s(&self, load: &ZoneLoad) -> f64 {
        if load.rate_rps >= MIN_RATE_RPS {
            return load.in_flight / load.rate_rps;
        }
        self.rate_rps().map_or(0.0, |rate_rps| self.in_flight / rate_rps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_set_by_second_update_and_converges_in_seconds() {
        let step = Duration::from_millis(250);
        let mut flow = ZoneLoad::default();
        flow.update(1_000, 5, Duration::ZERO);
        assert_eq!(PoolDemand::sum([flow].iter()).rate_rps(), None);
        flow.update(1_025, 5, step);
        assert_eq!(flow.rate_rps(), 100.0);
        let mut begun = 1_025;
        for _ in 0..16 {
            begun += 50;
            flow.update(begun, 20, step);
        }
        assert!((195.0..200.0).contains(&flow.rate_rps()), "{flow:?}");
        let demand = PoolDemand::sum([flow, ZoneLoad::default()].iter());
        assert!((demand.residence_s(&flow) - 0.1).abs() < 0.01);
        assert_eq!(
            demand.residence_s(&ZoneLoad::default()),
            demand.residence_s(&flow),
            "nothing else is known"
        );
        flow.update(10, 0, step);
        assert!(flow.rate_rps() >= 0.0, "endpoints have gone");
    }
}

//! The demand on a pool: request rate, and residence time by Little's law.

use std::time::Duration;

/// Time constant (1/e) of the exponential smoothing.
const SMOOTHING: Duration = Duration::from_secs(1);

/// A lower rate counts as no demand.
const MIN_RATE_RPS: f64 = 1.0;

/// Smoothed request rate and concurrency of one zone of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ZoneLoad {
    /// Total at the last update; `None` before the first one.
    total_requests: Option<u64>,
    /// Whether the first rate is set; smoothing starts with the second.
    has_rate: bool,
    rate_rps: f64,
    in_flight: f64,
}

impl ZoneLoad {
    /// A load from declared figures instead of measurements: the request rate and the time that
    /// each request stays.
    pub fn declared(rate_rps: f64, residence: Duration) -> Self {
        let in_flight = rate_rps * residence.as_secs_f64();
        Self { total_requests: None, has_rate: true, rate_rps, in_flight }
    }

    /// `total_requests` have started so far, `in_flight` of them are running, and the last update
    /// was `elapsed` ago.
    pub fn update(&mut self, total_requests: u64, in_flight: u64, elapsed: Duration) {
        let Some(before) = self.total_requests.replace(total_requests) else { return };
        let elapsed_s = elapsed.as_secs_f64();
        if elapsed_s <= 0.0 {
            return;
        }
        // The total falls when endpoints are removed.
        let rate_rps = total_requests.saturating_sub(before) as f64 / elapsed_s;
        let smoothing_factor =
            if self.has_rate { 1.0 - (-elapsed_s / SMOOTHING.as_secs_f64()).exp() } else { 1.0 };
        self.rate_rps += (rate_rps - self.rate_rps) * smoothing_factor;
        self.in_flight += (in_flight as f64 - self.in_flight) * smoothing_factor;
        self.has_rate = true;
    }

    pub fn rate_rps(&self) -> f64 {
        self.rate_rps
    }
}

/// The demand on all zones of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PoolDemand {
    rate_rps: f64,
    in_flight: f64,
}

impl PoolDemand {
    pub fn sum<'f>(loads: impl Iterator<Item = &'f ZoneLoad>) -> Self {
        loads.fold(Self::default(), |sum, load| Self {
            rate_rps: sum.rate_rps + load.rate_rps,
            in_flight: sum.in_flight + load.in_flight,
        })
    }

    /// Requests per second; `None` below the minimum rate.
    pub fn rate_rps(&self) -> Option<f64> {
        Some(self.rate_rps).filter(|rate| *rate >= MIN_RATE_RPS)
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> f64 {
        self.in_flight
    }

    /// Mean residence time of a request in seconds, by Little's law (L = λW). The figures are those
    /// of the zone if it has traffic, else of the pool.
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
        let mut load = ZoneLoad::default();
        load.update(1_000, 5, Duration::ZERO);
        assert_eq!(PoolDemand::sum([load].iter()).rate_rps(), None);
        load.update(1_025, 5, step);
        assert_eq!(load.rate_rps(), 100.0);
        let mut total = 1_025;
        for _ in 0..16 {
            total += 50;
            load.update(total, 20, step);
        }
        assert!((195.0..200.0).contains(&load.rate_rps()), "{load:?}");
        let demand = PoolDemand::sum([load, ZoneLoad::default()].iter());
        assert!((demand.residence_s(&load) - 0.1).abs() < 0.01);
        assert_eq!(
            demand.residence_s(&ZoneLoad::default()),
            demand.residence_s(&load),
            "the pool's residence time is the fallback"
        );
        load.update(10, 0, step);
        assert!(load.rate_rps() >= 0.0, "removed endpoints lower the total");
    }
}

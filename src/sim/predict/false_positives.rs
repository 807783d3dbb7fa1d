//! How often a healthy endpoint gets a false verdict, because of lost packets and late answers.
//!
//! The simulation counts the verdicts in virtual hours of a healthy pool. Where losses are few,
//! verdicts by probes alone are too rare for that: their rate follows from the chance of a single
//! strike, because the attempts of a probe are lost independently.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::director::Event;
use crate::logic::health::endpoint_health::HealthTransition;
use crate::logic::model::id::Locality;
use crate::logic::model::topology::PoolSpec;

use super::pool_sample::{POST_SHARE, PoolSample};
use super::{LatencyModel, ProbeResponse, single_pool_topology};
use crate::sim::parallel;
use crate::sim::world::{
    ArrivalSpacing, EndpointBehavior, OfferedLoad, Simulation, SimulationEvent, SimulationSettings,
    attempt_after,
};

/// The mean period of a probe, as a share of the interval: jitter only shortens it.
pub(in crate::sim) const MEAN_PERIOD: f64 = 0.95;

/// Hours of one simulation.
const WORLD_HOURS: f64 = 1.0;

/// The interval at which the log is emptied: a small log stays in the processor's cache.
const LOG_INTERVAL: Duration = Duration::from_secs(20);

/// Hours of a year.
const YEAR_HOURS: f64 = 24.0 * 365.25;

/// The budget of events when no number of hours is given.
const MAX_EVENTS: f64 = 40e6;

/// Events of one probe or one request.
const EVENTS_PER_EXCHANGE: f64 = 3.0;

/// The input of [`estimate_false_positives`].
#[derive(Clone, Debug)]
pub struct FalsePositiveInput {
    /// Virtual hours of the pool; `None` means as many as take some seconds.
    pub hours: Option<f64>,
    /// Equal seeds give equal answers.
    pub seed: u64,
    /// The round trip to an endpoint.
    pub round_trip: Duration,
    /// Requests per second over the whole pool, if it has traffic.
    pub rate_rps: Option<f64>,
    /// The share of probe attempts, in 0..1, that get no answer.
    pub probe_loss: f64,
    /// The share of the exchanges with requests, in 0..1, that lose a packet.
    pub traffic_loss: f64,
    /// The latency of endpoints.
    pub latency: LatencyModel,
    /// Worker threads of the proxy.
    pub workers: usize,
    /// The number of simulations that may run in parallel.
    pub threads: usize,
}

/// The false verdicts of one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct FalsePositiveEstimate {
    pub pool: Arc<str>,
    /// Simulated endpoints: a large pool is sampled.
    pub endpoints: usize,
    /// Virtual hours of all simulations together.
    pub hours: f64,
    /// Verdicts down in that time.
    pub verdicts: u64,
    /// Expected verdicts per endpoint and year.
    pub yearly: YearlyRate,
    /// The same by probes alone, from the chance of a strike: it need not have occurred.
    pub yearly_by_probes: f64,
}

/// A rate per endpoint, with its 95 % confidence bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YearlyRate {
    pub lower_bound: f64,
    pub estimate: f64,
    pub upper_bound: f64,
}

impl YearlyRate {
    /// The rate of `events` in `years`: Garwood's exact bounds by Byar's approximation, and the
    /// rule of three for no event.
    pub fn from_events(events: u64, years: f64) -> Self {
        if events == 0 {
            return Self { lower_bound: 0.0, estimate: 0.0, upper_bound: 3.0 / years };
        }
        let bound = |count: f64, side: f64| {
            count * (1.0 - 1.0 / (9.0 * count) + side * 1.96 / (3.0 * count.sqrt())).powi(3)
        };
        let count = events as f64;
        Self {
            lower_bound: bound(count, -1.0) / years,
            estimate: count / years,
            upper_bound: bound(count + 1.0, 1.0) / years,
        }
    }
}

/// Simulates a healthy pool. `local_zone` is the zone of this instance, `base` any instant.
pub fn estimate_false_positives(
    pool: &PoolSpec,
    local_zone: Option<&Locality>,
    input: &FalsePositiveInput,
    base: Instant,
) -> FalsePositiveEstimate {
    // With or without traffic, all zones are kept: their verdicts may be correlated.
    let sample = PoolSample::from_topology(
        &single_pool_topology(pool, local_zone),
        Some(input.rate_rps.unwrap_or(0.0)),
    );
    let endpoints = sample.endpoint_count();
    let hours = input.hours.unwrap_or_else(|| hours_within_budget(pool, &sample));
    let worlds = (hours / WORLD_HOURS).ceil().max(1.0);
    let mut rng = Rng::with_seed(input.seed);
    let seeds: Vec<u64> = (0..worlds as u64).map(|_| rng.u64(..)).collect();
    let each = Duration::from_secs_f64(hours / worlds * 3_600.0);
    let verdicts = parallel::parallel_map(&seeds, input.threads, |seed| {
        count_false_verdicts(&sample, input, *seed, base, each)
    });
    let verdicts = verdicts.into_iter().sum();
    let years = endpoints as f64 * hours / YEAR_HOURS;
    FalsePositiveEstimate {
        pool: Arc::clone(&pool.name),
        endpoints,
        hours,
        verdicts,
        yearly: YearlyRate::from_events(verdicts, years),
        yearly_by_probes: yearly_by_probes(pool, input),
    }
}

fn hours_within_budget(pool: &PoolSpec, sample: &PoolSample) -> f64 {
    let probes = sample.endpoint_count() as f64 / pool.detect.interval.as_secs_f64();
    let an_hour = 3_600.0 * EVENTS_PER_EXCHANGE * (probes + sample.rate_rps().unwrap_or(0.0));
    let hours = MAX_EVENTS / an_hour;
    let digit = 10f64.powf(hours.log10().floor());
    ((hours / digit).floor() * digit).max(1.0)
}

/// The verdicts down in one simulation.
fn count_false_verdicts(
    sample: &PoolSample,
    input: &FalsePositiveInput,
    seed: u64,
    base: Instant,
    time: Duration,
) -> u64 {
    let settings = SimulationSettings {
        seed,
        round_trip: input.round_trip,
        latency: input.latency.clone(),
        probe_loss: input.probe_loss,
        traffic_loss: input.traffic_loss,
        workers: input.workers,
        ..SimulationSettings::default()
    };
    let mut world = Simulation::new(base, settings);
    world.configure(sample.with_random_addresses(&mut Rng::with_seed(seed)));
    if let Some(rate_rps) = sample.rate_rps().filter(|rate| *rate > 0.0) {
        // Clients start after the first probes have passed: a pool without an up endpoint is no
        // failure.
        world.run_until(base + sample.pool().detect.interval);
        let pool = Arc::clone(&sample.pool().name);
        let spacing = ArrivalSpacing::Exponential;
        world.add_load(OfferedLoad {
            pool,
            rate_rps,
            spacing,
            post_share: POST_SHARE,
            faulty: None,
        });
    }
    let mut count = VerdictCounter { pool: sample.pool(), down_zones: Vec::new(), verdicts: 0 };
    let end = base + time;
    while world.now() < end {
        world.run_until(end.min(world.now() + LOG_INTERVAL));
        world.take_log().into_iter().for_each(|record| count.on_event(&record.event));
    }
    count.verdicts
}

/// Counts verdicts down, of endpoints and of whole zones.
struct VerdictCounter<'a> {
    pool: &'a PoolSpec,
    down_zones: Vec<Locality>,
    verdicts: u64,
}

impl VerdictCounter<'_> {
    fn on_event(&mut self, event: &SimulationEvent) {
        match event {
            SimulationEvent::Director(Event::HealthChanged {
                subject,
                change: HealthTransition::WentDown,
                ..
            }) => {
                // An endpoint of a zone that is down is counted already.
                self.verdicts += u64::from(!self.down_zones.contains(&subject.locality));
            }
            SimulationEvent::Director(Event::ZoneVerdictChanged {
                place,
                verdict: Some(_),
                ..
            }) => {
                let zone = self.pool.zones.iter().find(|zone| zone.locality == *place);
                self.verdicts += zone.map_or(0, |zone| zone.endpoints.len() as u64);
                self.down_zones.push(place.clone());
            }
            SimulationEvent::Director(Event::ZoneVerdictChanged {
                place, verdict: None, ..
            }) => {
                self.down_zones.retain(|down| down != place);
            }
            _ => {}
        }
    }
}

/// False verdicts per year of one endpoint by probes alone: the chance of a row of strikes, times
/// the rows that begin in a year.
pub fn yearly_by_probes(pool: &PoolSpec, input: &FalsePositiveInput) -> f64 {
    let detect = &pool.detect;
    let row = strike_chance(pool, input).powi(detect.down_after.max(1) as i32);
    let period_hours = detect.interval.as_secs_f64() * MEAN_PERIOD / 3_600.0;
    row * YEAR_HOURS / period_hours
}

/// The chance that none of a probe's attempts is answered in time.
pub fn strike_chance(pool: &PoolSpec, input: &FalsePositiveInput) -> f64 {
    let timeout = pool.detect.timeout;
    let healthy = EndpointBehavior::Healthy { latency: input.latency.clone() };
    let response = healthy.probe_response(pool.primary_probe(), Duration::MAX);
    let ProbeResponse::Answer { round_trips, service_time: service, .. } = response else {
        return 1.0;
    };
    let jitter = SimulationSettings::default().round_trip_jitter;
    let on_the_way = input.round_trip.mul_f64(1.0 + jitter / 2.0) * round_trips;
    let loss_probability = |after: Duration| {
        let late_probability = match timeout.checked_sub(after + on_the_way) {
            None => 1.0,
            Some(_) if service.is_zero() => 0.0,
            Some(left) => input.latency.share_above(left),
        };
        input.probe_loss + (1.0 - input.probe_loss) * late_probability
    };
    (0..).map_while(|index| attempt_after(timeout, index)).map(loss_probability).product()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::logic::model::topology::{EndpointSpec, ZoneSpec};
    use crate::logic::probing::probe::{HttpProbe, ProbeSpec};
    use crate::sim::latency::LatencyDistribution;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Three zones of one endpoint each.
    fn pool() -> PoolSpec {
        let zone = |(name, port): (&str, u16)| {
            let address = SocketAddr::from(([10, 0, 0, 1], port));
            let endpoints = vec![EndpointSpec { address, weight: 1 }];
            ZoneSpec::new(Locality::parse(name).expect("a place"), endpoints)
        };
        PoolSpec {
            probes: vec![ProbeSpec::http(HttpProbe::get("/"))],
            ..PoolSpec::new("web", [("r/a", 1), ("r/b", 2), ("s/a", 3)].map(zone).into())
        }
    }

    fn false_positive_input(
        probe_loss: f64,
        latency: LatencyModel,
        hours: f64,
    ) -> FalsePositiveInput {
        FalsePositiveInput {
            hours: Some(hours),
            seed: 7,
            round_trip: ms(1),
            rate_rps: None,
            probe_loss,
            traffic_loss: 0.0,
            latency,
            workers: 2,
            threads: 2,
        }
    }

    fn estimate_pool(input: &FalsePositiveInput) -> FalsePositiveEstimate {
        estimate_false_positives(&pool(), None, input, Instant::now())
    }

    #[test]
    fn yearly_rate_bounds_match_garwood_and_rule_of_three() {
        assert_eq!(
            YearlyRate::from_events(0, 100.0),
            YearlyRate { lower_bound: 0.0, estimate: 0.0, upper_bound: 0.03 }
        );
        // Garwood's exact bounds for 10 are 4.80 and 18.39.
        let ten = YearlyRate::from_events(10, 1.0);
        assert!(
            (ten.lower_bound - 4.80).abs() < 0.05 && (ten.upper_bound - 18.39).abs() < 0.05,
            "{ten:?}"
        );
        let one = YearlyRate::from_events(1, 1.0);
        assert!(
            one.lower_bound > 0.0 && one.lower_bound < 0.1 && (one.upper_bound - 5.57).abs() < 0.1
        );
    }

    #[test]
    fn yearly_by_probes_agrees_with_simulation() {
        let fixed = LatencyModel::Fixed(ms(1));
        let quantiles = [(0.3, ms(2)), (0.45, ms(600))];
        let drawn = LatencyDistribution::from_quantiles(&quantiles, None).expect("rising");
        for (loss, latency) in [(0.5, fixed), (0.0, LatencyModel::Distributed(Arc::new(drawn)))] {
            let found = estimate_pool(&false_positive_input(loss, latency, 6.0));
            assert!(found.verdicts > 30, "{found:?}");
            let (least, most) = (0.8 * found.yearly.lower_bound, 1.25 * found.yearly.upper_bound);
            assert!((least..most).contains(&found.yearly_by_probes), "{found:?}");
        }
    }

    #[test]
    fn no_loss_and_no_lateness_gives_no_false_verdict() {
        let found = estimate_pool(&false_positive_input(0.0, LatencyModel::Fixed(ms(1)), 2.0));
        assert_eq!((found.verdicts, found.yearly_by_probes), (0, 0.0));
        let busy = FalsePositiveInput {
            rate_rps: Some(50.0),
            ..false_positive_input(0.0, LatencyModel::Fixed(ms(1)), 0.1)
        };
        assert_eq!(estimate_pool(&busy).verdicts, 0);
    }
}

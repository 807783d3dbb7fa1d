//! How often a healthy endpoint is put down: what packets lost and late answers make of it.
//!
//! Virtual hours of a pool of which nothing fails are simulated, and the verdicts counted. Verdicts
//! of probes alone are too rare for that where losses are few: beside the count stands what follows
//! from the chance of a single strike, since each probe's attempts are lost independently.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::director::Event;
use crate::logic::health::Change;
use crate::logic::id::Place;
use crate::logic::topology::PoolSpec;

use super::sample::{POST_SHARE, Sample};
use super::{Latency, Meeting, alone};
use crate::sim::parallel;
use crate::sim::world::{Behavior, Offer, Settings, Spacing, What, World, attempt_after};

/// A probe's period is this long on average, as a share of the interval: jitter only shortens it.
pub(in crate::sim) const MEAN_PERIOD: f64 = 0.95;

/// Hours of one world.
const WORLD_HOURS: f64 = 1.0;

/// The log is emptied this often: while it is small it stays in the processor's cache.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// A year, in hours.
const YEAR_HOURS: f64 = 24.0 * 365.25;

/// Events that may be spent when no number of hours is asked for.
const EVENTS_AT_MOST: f64 = 40e6;

/// Events of one probe and of one request.
const EVENTS_EACH: f64 = 3.0;

/// What is to be found out.
#[derive(Clone, Debug)]
pub struct Question {
    /// Virtual hours of the pool; `None`: as many as take some seconds.
    pub hours: Option<f64>,
    /// Equal seeds give equal answers.
    pub seed: u64,
    /// From here to an endpoint and back.
    pub round_trip: Duration,
    /// Requests a second over the whole pool, if there are any.
    pub rate_rps: Option<f64>,
    /// The share of a probe's attempts, in 0..1, that get no answer.
    pub probe_loss: f64,
    /// The share of the requests' exchanges, in 0..1, that lose a packet.
    pub traffic_loss: f64,
    /// What endpoints take to answer.
    pub latency: Latency,
    /// How many worlds may run side by side.
    pub threads: usize,
}

/// The false verdicts of one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The pool's name.
    pub pool: Arc<str>,
    /// Endpoints that were simulated; of a large pool not all.
    pub endpoints: usize,
    /// Virtual hours of them together with each other.
    pub hours: f64,
    /// Verdicts down in that time.
    pub verdicts: u64,
    /// Verdicts a year that each endpoint must expect.
    pub yearly: Yearly,
    /// The same by probes alone, if the chance of a strike is the same at each: it need not have
    /// been seen.
    pub probes_alone: f64,
}

/// A rate for one endpoint, with its 95 % confidence bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yearly {
    /// Not less.
    pub at_least: f64,
    /// As seen.
    pub seen: f64,
    /// Not more.
    pub at_most: f64,
}

impl Yearly {
    /// Of this many events in this many years: exact (Garwood's) bounds by Byar's approximation;
    /// of none the rule of three.
    #[must_use]
    pub fn of(events: u64, years: f64) -> Self {
        if events == 0 {
            return Self { at_least: 0.0, seen: 0.0, at_most: 3.0 / years };
        }
        let bound = |count: f64, side: f64| {
            count * (1.0 - 1.0 / (9.0 * count) + side * 1.96 / (3.0 * count.sqrt())).powi(3)
        };
        let count = events as f64;
        Self {
            at_least: bound(count, -1.0) / years,
            seen: count / years,
            at_most: bound(count + 1.0, 1.0) / years,
        }
    }
}

/// Simulates a pool of which nothing fails. `here` is where this instance stands, `base` any
/// instant.
#[must_use]
pub fn estimate(
    pool: &PoolSpec,
    here: Option<&Place>,
    question: &Question,
    base: Instant,
) -> Estimate {
    // Whether there is traffic or not, all zones are kept: their verdicts may hang together.
    let sample = Sample::of(&alone(pool, here), Some(question.rate_rps.unwrap_or(0.0)));
    let endpoints = sample.endpoints();
    let hours = question.hours.unwrap_or_else(|| affordable_hours(pool, &sample));
    let worlds = (hours / WORLD_HOURS).ceil().max(1.0);
    let mut rng = Rng::with_seed(question.seed);
    let seeds: Vec<u64> = (0..worlds as u64).map(|_| rng.u64(..)).collect();
    let each = Duration::from_secs_f64(hours / worlds * 3_600.0);
    let verdicts =
        parallel::map(&seeds, question.threads, |seed| live(&sample, question, *seed, base, each));
    let verdicts = verdicts.into_iter().sum();
    let years = endpoints as f64 * hours / YEAR_HOURS;
    Estimate {
        pool: Arc::clone(&pool.name),
        endpoints,
        hours,
        verdicts,
        yearly: Yearly::of(verdicts, years),
        probes_alone: probes_alone(pool, question),
    }
}

fn affordable_hours(pool: &PoolSpec, sample: &Sample) -> f64 {
    let probes = sample.endpoints() as f64 / pool.detect.interval.as_secs_f64();
    let an_hour = 3_600.0 * EVENTS_EACH * (probes + sample.rate_rps().unwrap_or(0.0));
    let hours = EVENTS_AT_MOST / an_hour;
    let digit = 10f64.powf(hours.log10().floor());
    ((hours / digit).floor() * digit).max(1.0)
}

/// The verdicts down in one world.
fn live(sample: &Sample, question: &Question, seed: u64, base: Instant, time: Duration) -> u64 {
    let settings = Settings {
        seed,
        round_trip: question.round_trip,
        latency: question.latency.clone(),
        probe_loss: question.probe_loss,
        traffic_loss: question.traffic_loss,
        ..Settings::default()
    };
    let mut world = World::new(base, settings);
    world.configure(sample.renamed(&mut Rng::with_seed(seed)));
    if let Some(rate_rps) = sample.rate_rps().filter(|rate| *rate > 0.0) {
        // Nobody comes before the first probes have passed: that is no failure.
        world.run_until(base + sample.pool().detect.interval);
        let pool = Arc::clone(&sample.pool().name);
        let spacing = Spacing::Exponential;
        world.offer(Offer { pool, rate_rps, spacing, post_share: POST_SHARE });
    }
    let mut count = Count { pool: sample.pool(), down_zones: Vec::new(), verdicts: 0 };
    let end = base + time;
    while world.now() < end {
        world.run_until(end.min(world.now() + LOOK_EVERY));
        world.take_log().into_iter().for_each(|mark| count.see(&mark.what));
    }
    count.verdicts
}

/// Counts endpoints that are put down, each for itself or with its zone.
struct Count<'a> {
    pool: &'a PoolSpec,
    down_zones: Vec<Place>,
    verdicts: u64,
}

impl Count<'_> {
    fn see(&mut self, what: &What) {
        match what {
            What::Event(Event::Health { subject, change: Change::WentDown, .. }) => {
                // With its zone it was counted already.
                self.verdicts += u64::from(!self.down_zones.contains(&subject.place));
            }
            What::Event(Event::Zone { place, verdict: Some(_), .. }) => {
                let zone = self.pool.zones.iter().find(|zone| zone.place == *place);
                self.verdicts += zone.map_or(0, |zone| zone.endpoints.len() as u64);
                self.down_zones.push(place.clone());
            }
            What::Event(Event::Zone { place, verdict: None, .. }) => {
                self.down_zones.retain(|down| down != place);
            }
            _ => {}
        }
    }
}

/// False verdicts a year on one endpoint by probes alone: the chance of a whole row of strikes, times
/// the rows that begin in a year.
#[must_use]
pub fn probes_alone(pool: &PoolSpec, question: &Question) -> f64 {
    let detect = &pool.detect;
    let row = strike_chance(pool, question).powi(detect.down_after.max(1) as i32);
    let period_hours = detect.interval.as_secs_f64() * MEAN_PERIOD / 3_600.0;
    row * YEAR_HOURS / period_hours
}

/// The chance that none of a probe's attempts is answered in time.
#[must_use]
pub fn strike_chance(pool: &PoolSpec, question: &Question) -> f64 {
    let timeout = pool.detect.timeout;
    let healthy = Behavior::Healthy { latency: question.latency.clone() };
    let meeting = healthy.meets_probe(pool.primary(), Duration::MAX);
    let Meeting::Answer { round_trips, service, .. } = meeting else { return 1.0 };
    let jitter = Settings::default().round_trip_jitter;
    let on_the_way = question.round_trip.mul_f64(1.0 + jitter / 2.0) * round_trips;
    let fails = |after: Duration| {
        let is_late = match timeout.checked_sub(after + on_the_way) {
            None => 1.0,
            Some(_) if service.is_zero() => 0.0,
            Some(left) => question.latency.beyond(left),
        };
        question.probe_loss + (1.0 - question.probe_loss) * is_late
    };
    (0..).map_while(|index| attempt_after(timeout, index)).map(fails).product()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::logic::probe::{HttpProbe, ProbeSpec};
    use crate::logic::topology::{EndpointSpec, ZoneSpec};
    use crate::sim::latency::Distribution;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Three zones of one endpoint each.
    fn pool() -> PoolSpec {
        let zone = |(name, port): (&str, u16)| {
            let address = SocketAddr::from(([10, 0, 0, 1], port));
            let endpoints = vec![EndpointSpec { address, weight: 1 }];
            ZoneSpec::new(Place::parse(name).expect("a place"), endpoints)
        };
        PoolSpec {
            probes: vec![ProbeSpec::http(HttpProbe::get("/"))],
            ..PoolSpec::new("web", [("r/a", 1), ("r/b", 2), ("s/a", 3)].map(zone).into())
        }
    }

    fn question(probe_loss: f64, latency: Latency, hours: f64) -> Question {
        Question {
            hours: Some(hours),
            seed: 7,
            round_trip: ms(1),
            rate_rps: None,
            probe_loss,
            traffic_loss: 0.0,
            latency,
            threads: 2,
        }
    }

    fn ask(question: &Question) -> Estimate {
        estimate(&pool(), None, question, Instant::now())
    }

    #[test]
    fn none_seen_is_the_rule_of_three_and_some_have_bounds_around_them() {
        assert_eq!(Yearly::of(0, 100.0), Yearly { at_least: 0.0, seen: 0.0, at_most: 0.03 });
        // Garwood's exact bounds for 10 are 4.80 and 18.39.
        let ten = Yearly::of(10, 1.0);
        assert!(
            (ten.at_least - 4.80).abs() < 0.05 && (ten.at_most - 18.39).abs() < 0.05,
            "{ten:?}"
        );
        let one = Yearly::of(1, 1.0);
        assert!(one.at_least > 0.0 && one.at_least < 0.1 && (one.at_most - 5.57).abs() < 0.1);
    }

    #[test]
    fn what_is_multiplied_is_what_is_seen_where_both_can_be() {
        let fixed = Latency::Fixed(ms(1));
        let quantiles = [(0.3, ms(2)), (0.45, ms(600))];
        let drawn = Distribution::parametric(&quantiles, None).expect("rising");
        for (loss, latency) in [(0.5, fixed), (0.0, Latency::Drawn(Arc::new(drawn)))] {
            let found = ask(&question(loss, latency, 6.0));
            assert!(found.verdicts > 30, "{found:?}");
            let (least, most) = (0.8 * found.yearly.at_least, 1.25 * found.yearly.at_most);
            assert!((least..most).contains(&found.probes_alone), "{found:?}");
        }
    }

    #[test]
    fn where_nothing_is_lost_or_late_there_is_no_verdict() {
        let found = ask(&question(0.0, Latency::Fixed(ms(1)), 2.0));
        assert_eq!((found.verdicts, found.probes_alone), (0, 0.0));
        let busy = Question { rate_rps: Some(50.0), ..question(0.0, Latency::Fixed(ms(1)), 0.1) };
        assert_eq!(ask(&busy).verdicts, 0);
    }
}

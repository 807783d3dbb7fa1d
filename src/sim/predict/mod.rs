//! How long a failure stays unnoticed: a pool's detection window for every class of failure, from
//! simulation, with the closed form beside it.

mod sample;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::id::Place;
use crate::logic::outcome::Class;
use crate::logic::topology::{PoolSpec, Topology};
use crate::logic::window::{self, Bounds};

use super::world::{Behavior, Meeting, Settings};
use sample::{Ended, Onset, Sample};

/// Trials of each class and scope, unless said otherwise.
pub const DEFAULT_TRIALS: u32 = 1_000;

/// Turns of the director that all trials of one class and scope may take together: what needs very
/// many for one trial (hundreds of strikes in a row, a flood of requests that notice nothing) gets
/// fewer trials.
const TURNS_AT_MOST: u64 = 200_000;

/// Fewer trials than this tell nothing of a tail.
const TRIALS_AT_LEAST: u32 = 50;

/// What is to be predicted.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Trials of each class and scope.
    pub trials: u32,
    /// Equal seeds give equal predictions.
    pub seed: u64,
    /// From here to an endpoint and back.
    pub round_trip: Duration,
    /// Requests a second over the whole pool, to be predicted with as well as without.
    pub rate_rps: Option<f64>,
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One endpoint.
    Endpoint,
    /// A whole zone: the window ends with the verdict on its last endpoint.
    Zone,
}

impl Scope {
    /// The word used in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Zone => "zone",
        }
    }
}

/// The prediction for one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The pool's name.
    pub pool: Arc<str>,
    /// The zone that fails, or whose endpoint does: the largest of those that get traffic first.
    pub zone: Place,
    /// Its endpoints.
    pub zone_endpoints: usize,
    /// By traffic, scope and class, in this order.
    pub rows: Vec<Row>,
}

/// The prediction for one kind of failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// What fails.
    pub scope: Scope,
    /// How.
    pub class: Class,
    /// Requests a second over the pool; `None`: active probes alone.
    pub traffic_rps: Option<f64>,
    /// From onset to verdict.
    pub window: Window,
    /// What the configuration's periods add up to, for active probes alone.
    pub closed_form: Bounds,
}

/// A detection window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Window {
    /// From the trials.
    Seen {
        /// How long it took.
        spread: Spread,
        /// Whether it lies within the closed form, which holds for active probes alone.
        within_closed_form: Option<bool>,
    },
    /// Never noticed.
    Unseen(Unseen),
}

/// How the trials are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// The least.
    pub best: Duration,
    /// Half of the trials took at most this long.
    pub median: Duration,
    /// All but a hundredth took at most this long.
    pub p99: Duration,
    /// The most.
    pub worst: Duration,
    /// How many there were.
    pub trials: u32,
}

/// Why a failure is never noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// The pool's probe passes all the same.
    ProbePasses,
    /// The probe's timeout is shorter than an answer takes: no endpoint is ever up.
    NeverUp,
}

/// Predicts one pool. `here` is where this instance stands, `base` any instant.
#[must_use]
pub fn predict(
    pool: &PoolSpec,
    here: Option<&Place>,
    question: &Question,
    base: Instant,
) -> Prediction {
    let topology = alone(pool, here);
    let mut rows = Vec::new();
    let rates = std::iter::once(None).chain(question.rate_rps.map(Some));
    for traffic_rps in rates {
        let sample = Sample::of(&topology, traffic_rps);
        for scope in [Scope::Endpoint, Scope::Zone] {
            for class in Class::ALL.into_iter().filter(|class| applies(*class, pool)) {
                rows.push(
                    Trial { pool, sample: &sample, question, scope, class, base }.row(traffic_rps),
                );
            }
        }
    }
    let zone = &pool.zones[sample::zone(pool, here)];
    Prediction {
        pool: Arc::clone(&pool.name),
        zone: zone.place.clone(),
        zone_endpoints: zone.endpoints.len(),
        rows,
    }
}

/// One row of [`predict`]: this class and scope, with the question's traffic if it has any.
#[must_use]
pub fn predict_one(
    pool: &PoolSpec,
    here: Option<&Place>,
    question: &Question,
    (scope, class): (Scope, Class),
    base: Instant,
) -> Row {
    let sample = Sample::of(&alone(pool, here), question.rate_rps);
    Trial { pool, sample: &sample, question, scope, class, base }.row(question.rate_rps)
}

/// What cannot befall whoever speaks no TLS is not worth a row.
fn applies(class: Class, pool: &PoolSpec) -> bool {
    class != Class::Tls || pool.primary().tls.is_some()
}

/// A topology of this pool only: pools do not touch each other.
fn alone(pool: &PoolSpec, here: Option<&Place>) -> Topology {
    Topology { here: here.cloned(), pools: vec![Arc::new(pool.clone())], ..Topology::default() }
}

/// One kind of failure, tried many times.
struct Trial<'a> {
    pool: &'a PoolSpec,
    sample: &'a Sample,
    question: &'a Question,
    scope: Scope,
    class: Class,
    base: Instant,
}

impl Trial<'_> {
    fn row(&self, traffic_rps: Option<f64>) -> Row {
        let closed_form = self.closed_form(1.0);
        let window = self.window(traffic_rps.is_some());
        Row { scope: self.scope, class: self.class, traffic_rps, window, closed_form }
    }

    fn settings(&self) -> Settings {
        let round_trip = self.question.round_trip;
        Settings { round_trip, ..Settings::default() }
    }

    /// What a probe of this pool needs to find out, in round trips and the endpoint's own time;
    /// `None` if it never does.
    fn probe_cost(&self, stretch: f64) -> Option<Duration> {
        let round_trip = self.question.round_trip.mul_f64(stretch);
        match Behavior::of(self.class).meets_probe(self.pool.primary()) {
            Meeting::Answer { result: Ok(()), .. } => None,
            Meeting::Answer { round_trips, service, .. } => {
                Some(round_trip * round_trips + service)
            }
            Meeting::Silence(_) => Some(self.pool.detect.timeout),
        }
    }

    fn closed_form(&self, stretch: f64) -> Bounds {
        let cost = self.probe_cost(stretch).unwrap_or(self.question.round_trip);
        window::bounds(self.class, &self.pool.detect, cost)
    }

    fn window(&self, with_traffic: bool) -> Window {
        if !self.starts() {
            return Window::Unseen(Unseen::NeverUp);
        }
        // Traffic alone makes no verdict of what the probe does not confirm, and a bad status is
        // no evidence of traffic's at all.
        if self.probe_cost(1.0).is_none() {
            return Window::Unseen(Unseen::ProbePasses);
        }
        let mut took = self.run_all();
        took.sort_unstable();
        let Some(spread) = self.spread(&took) else { return Window::Unseen(Unseen::NeverUp) };
        let within_closed_form = (!with_traffic).then(|| self.is_within(&spread));
        Window::Seen { spread, within_closed_form }
    }

    /// Whether an endpoint's answer is fast enough for the probe.
    fn starts(&self) -> bool {
        let Settings { latency, round_trip_jitter, .. } = self.settings();
        let healthy = Behavior::Healthy { latency }.meets_probe(self.pool.primary());
        let Meeting::Answer { round_trips, service, .. } = healthy else { return false };
        let longest = self.question.round_trip.mul_f64(1.0 + round_trip_jitter) * round_trips;
        longest + service <= self.pool.detect.timeout
    }

    fn run_all(&self) -> Vec<Duration> {
        let mut rng = Rng::with_seed(self.question.seed);
        let mut turns = 0;
        let mut took = Vec::new();
        for trial in 0..self.question.trials.max(1) {
            if turns > TURNS_AT_MOST && trial >= TRIALS_AT_LEAST {
                break;
            }
            let ended = self.run(&mut rng);
            turns += ended.turns;
            took.extend(ended.took);
        }
        took
    }

    /// One trial in a world of its own, warmed up; the failure begins at a random phase.
    fn run(&self, rng: &mut Rng) -> Ended {
        let settings = Settings { seed: rng.u64(..), ..self.settings() };
        let failure = Onset {
            scope: self.scope,
            class: self.class,
            phase: self.pool.detect.interval.mul_f64(rng.f64()),
            patience: 2 * self.closed_form(2.0).worst + Duration::from_secs(1),
        };
        self.sample.trial(settings, self.base, &failure, rng)
    }

    /// The quantiles of the whole zone from those of the sample: the last of n independent
    /// endpoints is the last of n/k groups of k, so their distribution is a power of it.
    fn spread(&self, sorted: &[Duration]) -> Option<Spread> {
        let groups = match self.scope {
            Scope::Endpoint => 1.0,
            Scope::Zone => self.sample.zone_groups,
        };
        let at = |share: f64| {
            let rank = (share.powf(1.0 / groups) * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
        };
        Some(Spread {
            best: *sorted.first()?,
            median: at(0.5)?,
            p99: at(0.99)?,
            worst: *sorted.last()?,
            trials: sorted.len() as u32,
        })
    }

    /// The closed form counts from the probe's start with a round trip of fixed length. The least
    /// counts from its arrival, the most has the longest round trips.
    fn is_within(&self, spread: &Spread) -> bool {
        let stretch = 1.0 + self.settings().round_trip_jitter;
        let on_the_way = self.question.round_trip.mul_f64(stretch) * 2 + self.settings().latency;
        let least = self.closed_form(1.0).best.saturating_sub(on_the_way);
        least <= spread.best && spread.worst <= self.closed_form(stretch).worst
    }
}

//! How long a failure stays unnoticed: a pool's detection window for every class of failure, from
//! simulation, with the closed form beside it.

mod sample;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::id::Place;
use crate::logic::outcome::Class;
use crate::logic::topology::{PoolSpec, Topology};
use crate::logic::window::{self, Bounds};

use super::world::{Behavior, Meeting, Settings};
use sample::Sample;

/// Trials of each class and scope, unless said otherwise.
pub const DEFAULT_TRIALS: u32 = 1_000;

/// Probes that all trials of one class and scope may take together; what needs more for one trial
/// (hundreds of strikes in a row) gets fewer trials.
const PROBES_AT_MOST: u64 = 400_000;

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
            for class in Class::ALL {
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

/// A topology of this pool only: pools do not touch each other.
fn alone(pool: &PoolSpec, here: Option<&Place>) -> Topology {
    Topology { here: here.cloned(), pools: vec![Arc::new(pool.clone())] }
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
        match Behavior::of(self.class).meets_probe(&self.pool.probe.kind) {
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
        let trials = self.trials();
        let mut rng = Rng::with_seed(self.question.seed);
        let mut took: Vec<Duration> = (0..trials).filter_map(|_| self.run(&mut rng)).collect();
        took.sort_unstable();
        let Some(spread) = self.spread(&took) else { return Window::Unseen(Unseen::NeverUp) };
        let within_closed_form = (!with_traffic).then(|| self.is_within(&spread));
        Window::Seen { spread, within_closed_form }
    }

    /// Whether an endpoint's answer is fast enough for the probe.
    fn starts(&self) -> bool {
        let Settings { latency, round_trip_jitter, .. } = self.settings();
        let healthy = Behavior::Healthy { latency }.meets_probe(&self.pool.probe.kind);
        let Meeting::Answer { round_trips, service, .. } = healthy else { return false };
        let longest = self.question.round_trip.mul_f64(1.0 + round_trip_jitter) * round_trips;
        longest + service <= self.pool.detect.timeout
    }

    fn trials(&self) -> u32 {
        let detect = &self.pool.detect;
        let each = (u64::from(detect.down_after) + 4) * self.sample.endpoints() as u64;
        let affordable = u32::try_from(PROBES_AT_MOST / each).unwrap_or(u32::MAX);
        self.question.trials.min(affordable.max(TRIALS_AT_LEAST)).max(1)
    }

    /// One trial in a world of its own, warmed up; the failure begins at a random phase.
    fn run(&self, rng: &mut Rng) -> Option<Duration> {
        let settings = Settings { seed: rng.u64(..), ..self.settings() };
        let patience = 2 * self.closed_form(2.0).worst + Duration::from_secs(1);
        let detect = &self.pool.detect;
        let phase = detect.interval.mul_f64(rng.f64());
        self.sample.trial(settings, self.base, self.scope, self.class, phase, patience, rng)
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

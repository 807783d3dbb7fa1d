//! How long a failure stays unnoticed: a pool's detection window for every kind of failure, from
//! simulation, with the closed form beside it. And how often a healthy endpoint is put down.

pub mod falsely;
mod fault;
mod sample;
#[cfg(test)]
mod tests;

pub use fault::Fault;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::logic::id::Place;
use crate::logic::topology::{PoolSpec, Topology};
use crate::logic::window::{self, Bounds};

use super::latency::Latency;
use super::parallel;
use super::world::{Behavior, Finding, Meeting, Settings};
use sample::{Ended, Onset, Sample};

/// Trials of each fault and scope, unless said otherwise.
pub const DEFAULT_TRIALS: u32 = 1_000;

/// Turns of the director that all trials of one fault and scope may take together: what needs very
/// many for one trial (hundreds of strikes in a row, a flood of requests that notice nothing) gets
/// fewer trials.
const TURNS_AT_MOST: u64 = 200_000;

/// Fewer trials than this tell nothing of a tail.
const TRIALS_AT_LEAST: u32 = 50;

/// If none of so many trials ends with a verdict (or of so few as take all those turns), none will.
const TRIALS_IN_VAIN: u32 = 10;

/// What a healthy endpoint takes to answer, unless said otherwise.
pub const SERVICE: Duration = Duration::from_millis(1);

/// What only traffic can see is waited for this long.
const TRAFFIC_PATIENCE: Duration = Duration::from_secs(30);

/// What is to be predicted.
#[derive(Clone, Debug)]
pub struct Question {
    /// Trials of each fault and scope.
    pub trials: u32,
    /// Equal seeds give equal predictions.
    pub seed: u64,
    /// From here to an endpoint and back.
    pub round_trip: Duration,
    /// Requests a second over the whole pool, to be predicted with as well as without.
    pub rate_rps: Option<f64>,
    /// What endpoints take to answer while they are well.
    pub latency: Latency,
    /// How many worlds may run side by side. The answer does not depend on it.
    pub threads: usize,
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
    /// By traffic, scope and fault, in this order.
    pub rows: Vec<Row>,
}

/// The prediction for one kind of failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// What fails.
    pub scope: Scope,
    /// How.
    pub fault: Fault,
    /// Requests a second over the pool; `None`: active probes alone.
    pub traffic_rps: Option<f64>,
    /// From onset to verdict.
    pub window: Window,
    /// What the configuration's periods add up to, for active probes alone, if they see it.
    pub closed_form: Option<Bounds>,
}

/// A detection window.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are seen, and there are few")]
pub enum Window {
    /// From the trials.
    Seen {
        /// How long it took.
        spread: Spread,
        /// Whether it lies within the closed form, which holds for active probes alone, where every
        /// answer takes as long as every other.
        within_closed_form: Option<bool>,
    },
    /// Never noticed.
    Unseen(Unseen),
}

/// Steps of [`Spread::quantiles`].
pub const QUANTILES: usize = 20;

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
    /// Each twentieth, from the least to the most.
    pub quantiles: [Duration; QUANTILES + 1],
    /// How many there were.
    pub trials: u32,
    /// Those of them in which no verdict had come when waiting ended, and that count as having
    /// taken until then.
    pub unnoticed: u32,
}

/// Why a failure is never noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// The pool's probe passes all the same; another one would not.
    ProbePasses,
    /// No probe sees it: only requests that meet it do.
    NeedsTraffic,
    /// Requests meet it, and no verdict comes of it for half a minute at least.
    NotNoticed,
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
    let rates = std::iter::once(None).chain(question.rate_rps.map(Some));
    let samples: Vec<_> = rates.map(|rate| (rate, Sample::of(&topology, rate))).collect();
    let faults = || Fault::ALL.into_iter().filter(|fault| fault.concerns(pool.primary()));
    let mut asked = Vec::new();
    for (rate_rps, sample) in &samples {
        for scope in [Scope::Endpoint, Scope::Zone] {
            asked
                .extend(faults().map(|fault| {
                    (*rate_rps, Trial { pool, sample, question, scope, fault, base })
                }));
        }
    }
    let rows = parallel::map(&asked, question.threads, |(rate_rps, trial)| trial.row(*rate_rps));
    let zone = &pool.zones[sample::zone(pool, here)];
    Prediction {
        pool: Arc::clone(&pool.name),
        zone: zone.place.clone(),
        zone_endpoints: zone.endpoints.len(),
        rows,
    }
}

/// One row of [`predict`]: this fault and scope, with the question's traffic if it has any.
#[must_use]
pub fn predict_one(
    pool: &PoolSpec,
    here: Option<&Place>,
    question: &Question,
    (scope, fault): (Scope, Fault),
    base: Instant,
) -> Row {
    let sample = Sample::of(&alone(pool, here), question.rate_rps);
    Trial { pool, sample: &sample, question, scope, fault, base }.row(question.rate_rps)
}

/// The same for the zone at this place in the pool's list, whichever gets traffic first.
#[must_use]
pub fn predict_zone(
    pool: &PoolSpec,
    here: Option<&Place>,
    question: &Question,
    (zone, scope, fault): (usize, Scope, Fault),
    base: Instant,
) -> Row {
    let sample = Sample::with(&alone(pool, here), zone, question.rate_rps);
    Trial { pool, sample: &sample, question, scope, fault, base }.row(question.rate_rps)
}

/// What the configuration's periods add up to for this fault and scope, by active probes alone: at
/// once, since nothing is simulated. `None` where no probe sees it.
#[must_use]
pub fn closed_form(
    pool: &PoolSpec,
    round_trip: Duration,
    (scope, fault): (Scope, Fault),
) -> Option<Bounds> {
    let cost = probe_cost(pool, fault, round_trip, SERVICE)?;
    Some(bounds(pool, (scope, fault), (cost, cost)))
}

/// What a probe of this pool needs to find out, in round trips and the endpoint's own time (`service`,
/// if it answers as it should); `None` if it never does.
fn probe_cost(
    pool: &PoolSpec,
    fault: Fault,
    round_trip: Duration,
    service: Duration,
) -> Option<Duration> {
    let timeout = pool.detect.timeout;
    match fault.behavior().meets_probe(pool.primary(), service) {
        Meeting::Answer { round_trips, service, finding } => {
            let cost = round_trip * round_trips + service;
            (matches!(finding, Finding::Fail(_)) || cost > timeout).then_some(cost.min(timeout))
        }
        Meeting::Silence(_) => Some(timeout),
    }
}

/// The closed form, where a probe costs so much at least and at most.
fn bounds(
    pool: &PoolSpec,
    (scope, fault): (Scope, Fault),
    (least, most): (Duration, Duration),
) -> Bounds {
    let of = |cost| window::bounds(fault.class(), &pool.detect, cost);
    let worst = of(most).worst;
    if scope == Scope::Zone && falls_as_a_whole(pool, fault) {
        // The first strikes of enough of its endpoints are its verdict.
        return Bounds { best: least, worst };
    }
    Bounds { best: of(least).best, worst }
}

/// Why no probe of this pool will ever notice this fault; `None` if one does. `base` is any instant.
#[must_use]
pub fn unseen_by_probes(
    pool: &PoolSpec,
    question: &Question,
    fault: Fault,
    base: Instant,
) -> Option<Unseen> {
    let sample = Sample::of(&alone(pool, None), None);
    Trial { pool, sample: &sample, question, scope: Scope::Endpoint, fault, base }.unseen(false)
}

/// Whether a whole zone falls to this fault by its own verdict, before each of its endpoints has
/// one, by active probes alone.
#[must_use]
pub fn falls_as_a_whole(pool: &PoolSpec, fault: Fault) -> bool {
    let is_connection = matches!(
        fault,
        Fault::Refused | Fault::Reset | Fault::Hang | Fault::BlackHole | Fault::Slow { .. }
    );
    pool.correlate.quorum_percent <= 100 && is_connection
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
    fault: Fault,
    base: Instant,
}

impl Trial<'_> {
    fn row(&self, traffic_rps: Option<f64>) -> Row {
        let closed_form = self.is_probed().then(|| self.closed_form(1.0));
        let window = self.window(traffic_rps.is_some());
        Row { scope: self.scope, fault: self.fault, traffic_rps, window, closed_form }
    }

    fn settings(&self) -> Settings {
        let round_trip = self.question.round_trip;
        Settings { round_trip, latency: self.question.latency.clone(), ..Settings::default() }
    }

    fn is_probed(&self) -> bool {
        self.probe_cost(1.0, self.question.latency.exceeded_by(0.5)).is_some()
    }

    fn probe_cost(&self, stretch: f64, service: Duration) -> Option<Duration> {
        let round_trip = self.question.round_trip.mul_f64(stretch);
        probe_cost(self.pool, self.fault, round_trip, service)
    }

    fn closed_form(&self, stretch: f64) -> Bounds {
        // The quickest answer bounds the best case, the slowest one the worst.
        let cost = |exceeded_by: f64| {
            let service = self.question.latency.exceeded_by(exceeded_by);
            self.probe_cost(stretch, service).unwrap_or(self.question.round_trip)
        };
        bounds(self.pool, (self.scope, self.fault), (cost(1.0), cost(0.0)))
    }

    fn falls_as_a_whole(&self, with_traffic: bool) -> bool {
        falls_as_a_whole(self.pool, self.fault)
            || with_traffic
                && self.fault.is_met_by_traffic()
                && self.pool.correlate.quorum_percent <= 100
    }

    /// Why it is clear beforehand that it will never be noticed, if it is.
    fn unseen(&self, with_traffic: bool) -> Option<Unseen> {
        if !self.starts() {
            return Some(Unseen::NeverUp);
        }
        let is_met = with_traffic && self.fault.is_met_by_traffic();
        if self.is_probed() || is_met {
            return None;
        }
        let needs_traffic = self.fault.spares_probes();
        Some(if needs_traffic { Unseen::NeedsTraffic } else { Unseen::ProbePasses })
    }

    fn window(&self, with_traffic: bool) -> Window {
        if let Some(why) = self.unseen(with_traffic) {
            return Window::Unseen(why);
        }
        let patience = if self.is_probed() {
            2 * self.closed_form(2.0).worst + Duration::from_secs(1)
        } else {
            TRAFFIC_PATIENCE
        };
        let is_each_for_itself = !self.falls_as_a_whole(with_traffic);
        match self.spread(&self.run_all(patience), patience, is_each_for_itself) {
            None => Window::Unseen(Unseen::NotNoticed),
            Some(spread) => {
                let is_bounded =
                    !with_traffic && matches!(self.question.latency, Latency::Fixed(_));
                let within_closed_form = is_bounded.then(|| self.is_within(&spread));
                Window::Seen { spread, within_closed_form }
            }
        }
    }

    /// Whether an endpoint's usual answer is fast enough for the probe.
    fn starts(&self) -> bool {
        let usual = self.question.latency.exceeded_by(0.5);
        let healthy = Behavior::Healthy { latency: Latency::Fixed(usual) };
        let meeting = healthy.meets_probe(self.pool.primary(), usual);
        let Meeting::Answer { round_trips, service, .. } = meeting else { return false };
        let jitter = self.settings().round_trip_jitter;
        let longest = self.question.round_trip.mul_f64(1.0 + jitter) * round_trips;
        longest + service <= self.pool.detect.timeout
    }

    /// How long each trial took; `None` if it was longer than `patience`.
    fn run_all(&self, patience: Duration) -> Vec<Option<Duration>> {
        let mut rng = Rng::with_seed(self.question.seed);
        let mut turns = 0;
        let mut took = Vec::new();
        for trial in 0..self.question.trials.max(1) {
            let is_dear = turns > TURNS_AT_MOST && trial >= TRIALS_AT_LEAST;
            let is_vain = turns > TURNS_AT_MOST || trial >= TRIALS_IN_VAIN;
            if is_dear || is_vain && took.iter().all(Option::is_none) {
                break;
            }
            let ended = self.run(patience, &mut rng);
            turns += ended.turns;
            took.push(ended.took);
        }
        took
    }

    /// One trial in a world of its own, warmed up; the failure begins at a random phase.
    fn run(&self, patience: Duration, rng: &mut Rng) -> Ended {
        let settings = Settings { seed: rng.u64(..), ..self.settings() };
        let failure = Onset {
            scope: self.scope,
            fault: self.fault,
            phase: self.pool.detect.interval.mul_f64(rng.f64()),
            patience,
        };
        self.sample.trial(settings, self.base, &failure, rng)
    }

    /// The quantiles of the whole zone from those of the sample. Where each endpoint falls for
    /// itself, the last of n is the last of n/k groups of k, and the distribution a power of the
    /// sample's; where the zone does as a whole, it is the sample's: the larger the zone, the less
    /// it strays. `None` if most trials ended without a verdict.
    fn spread(
        &self,
        took: &[Option<Duration>],
        patience: Duration,
        is_each_for_itself: bool,
    ) -> Option<Spread> {
        let unnoticed = took.iter().filter(|took| took.is_none()).count();
        if 2 * unnoticed > took.len() {
            return None;
        }
        let mut sorted: Vec<Duration> = took.iter().map(|took| took.unwrap_or(patience)).collect();
        sorted.sort_unstable();
        let groups = match self.scope {
            Scope::Zone if is_each_for_itself => self.sample.zone_groups,
            Scope::Endpoint | Scope::Zone => 1.0,
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
            quantiles: std::array::from_fn(|step| {
                at(step as f64 / QUANTILES as f64).unwrap_or_default()
            }),
            trials: sorted.len() as u32,
            unnoticed: unnoticed as u32,
        })
    }

    /// The closed form counts from the probe's start with a round trip of fixed length. The least
    /// counts from its arrival, the most has the longest round trips.
    fn is_within(&self, spread: &Spread) -> bool {
        let stretch = 1.0 + self.settings().round_trip_jitter;
        let slowest = self.question.latency.exceeded_by(0.0);
        let on_the_way = self.question.round_trip.mul_f64(stretch) * 2 + slowest;
        let least = self.closed_form(1.0).best.saturating_sub(on_the_way);
        least <= spread.best && spread.worst <= self.closed_form(stretch).worst
    }
}

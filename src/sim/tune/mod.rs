//! The detection window that meets a target at the least probing.
//!
//! The closed form searches: for each number of strikes and each timeout the longest interval that
//! meets the target follows at once. Of all those that keep the other bounds the one that probes least
//! sets the pace; a tenth of it is given for patience, that is for waiting longer before silence is a
//! verdict. The simulator then confirms it, with the same director that runs in production;
//! where it finds the window longer, the search is made again for a target that is shorter by as
//! much.

mod search;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::id::Place;
use crate::logic::topology::{Detect, PoolSpec};

use super::latency::Latency;
use super::predict::falsely;
use super::predict::{self, Fault, Prediction, Row, Unseen, Window};
use search::{Choice, Space};

/// How often a choice is tried in the simulator, at most.
const ROUNDS: u32 = 5;

/// A target is shortened by this much more than it was missed by.
const MARGIN: f64 = 0.99;

/// No window is sought that is longer.
const LONGEST: Duration = Duration::from_secs(600);

/// The best window that can be reached is found to within this share.
const REACHABLE_STEP: f64 = 1.02;

/// What the window must be.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// The 99th percentile of the window of every fault that counts, by active probes alone.
    pub target: Duration,
    /// The faults that count.
    pub faults: Vec<Fault>,
    /// Whether one that no probe of a pool sees makes the target unreachable, or does not count.
    pub must_see_all: bool,
    /// False verdicts a year on all endpoints of the tuned pools together; less is kept.
    pub false_yearly: f64,
    /// Probes a second of the whole configuration; not more.
    pub probes_per_second: f64,
}

/// A pool that is to be tuned, and what was observed of it.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// The pool.
    pub pool: &'a PoolSpec,
    /// How it is simulated: with its latency and its round trip.
    pub question: predict::Question,
    /// The share of a probe's attempts, in 0..1, that get no answer.
    pub probe_loss: f64,
}

/// What keeps a target from being met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Constraint {
    /// This fault is asked for, and no probe of the pool notices it.
    Unseen(Fault, Unseen),
    /// A probe must wait this long for an endpoint that is well.
    Timeout(Duration),
    /// More false verdicts than wished; this many a year are the least.
    FalseVerdicts(f64),
    /// The simulator finds this 99th percentile, whatever is tried.
    Simulation(Duration),
}

/// A window with all that is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Its parameters.
    pub detect: Detect,
    /// Probes a second of the pool while all is well.
    pub probes_per_second: f64,
    /// False verdicts a year on all of the pool's endpoints, by probes alone.
    pub false_yearly: f64,
    /// What the simulator says.
    pub prediction: Prediction,
    /// The longest 99th percentile of the rows that count; `None` if none does.
    pub slowest: Option<Slowest>,
}

/// The row that decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slowest {
    /// Which.
    pub row: Row,
    /// Its 99th percentile.
    pub p99: Duration,
}

/// One pool, before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuned {
    /// Its name.
    pub pool: Arc<str>,
    /// As configured.
    pub before: State,
    /// As found; of a target that cannot be met, the best that can.
    pub after: Option<State>,
    /// What is in the way, of this pool's own.
    pub binding: Vec<Constraint>,
}

/// What came of it all.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Every pool that was to be tuned.
    pub pools: Vec<Tuned>,
    /// Whether every one of them meets the target within all bounds.
    pub is_met: bool,
    /// The shortest target that could be met, if this one cannot.
    pub reachable: Option<Duration>,
    /// Probes a second that are left to the tuned pools.
    pub budget: f64,
    /// The least that they need for the target, if that is more.
    pub over_budget: Option<f64>,
}

/// Tunes these pools together; `here` is where this instance stands, `base` any instant. `told` hears
/// what is being done, for whoever waits.
pub fn tune(
    subjects: &[Subject<'_>],
    here: Option<&Place>,
    wishes: &Wishes,
    base: Instant,
    told: &mut dyn FnMut(&str),
) -> Answer {
    let endpoints: usize = subjects.iter().map(|subject| endpoints(subject.pool)).sum();
    let spaces: Vec<Space<'_>> = subjects
        .iter()
        .map(|subject| {
            let share = self::endpoints(subject.pool) as f64 / endpoints.max(1) as f64;
            Space::of(subject, wishes, wishes.false_yearly * share, base)
        })
        .collect();
    let (met, over_budget) = choose(&spaces, wishes.target, wishes.probes_per_second);
    let reachable = if met { None } else { shortest(&spaces, wishes) };
    let mut answer = Answer {
        pools: Vec::new(),
        is_met: met,
        reachable,
        budget: wishes.probes_per_second,
        over_budget,
    };
    for (subject, space) in subjects.iter().zip(&spaces) {
        let name = &subject.pool.name;
        let mut look = |detect: Detect, what: &str| {
            told(&format!("pool {name}: {what}"));
            let pool = PoolSpec { detect, ..subject.pool.clone() };
            state(&pool, subject, here, &wishes.faults, base)
        };
        let before = look(subject.pool.detect, "as it is");
        let mut binding = space.choose(wishes.target).err().unwrap_or_default();
        let mut after = None;
        if met {
            match confirm(space, wishes.target, &mut |detect| look(detect, "as it would be")) {
                Ok(state) => after = Some(state),
                Err(p99) => binding.push(Constraint::Simulation(p99)),
            }
        } else if let Some(goal) = reachable
            && let Ok(choice) = space.choose(goal)
        {
            // At the edge there is nothing shorter to aim at: what the simulator finds is what can
            // be had.
            let state = look(choice.detect, "the best that can be had");
            let found = state.slowest.map(|slowest| whole(slowest.p99));
            answer.reachable = answer.reachable.max(found);
            after = Some(state);
        }
        answer.pools.push(Tuned { pool: Arc::clone(name), before, after, binding });
    }
    let after = answer.pools.iter().filter_map(|pool| pool.after.as_ref());
    let probing: f64 = after.map(|state| state.probes_per_second).sum();
    // What the simulator had shortened may be too much for the budget.
    answer.over_budget =
        answer.over_budget.or_else(|| (probing > answer.budget).then_some(probing));
    answer.is_met = answer.over_budget.is_none()
        && answer.pools.iter().all(|pool| pool.binding.is_empty() && pool.after.is_some());
    answer
}

/// Whether all pools together can meet `goal`; if only the budget says no, how many probes a second
/// it would take.
fn choose(spaces: &[Space<'_>], goal: Duration, budget: f64) -> (bool, Option<f64>) {
    let choices: Option<Vec<Choice>> = spaces.iter().map(|space| space.choose(goal).ok()).collect();
    let Some(choices) = choices else { return (false, None) };
    let needed: f64 = choices.iter().map(|choice| choice.probes_per_second).sum();
    if needed <= budget { (true, None) } else { (false, Some(needed)) }
}

/// The shortest target that all pools can meet within all bounds.
fn shortest(spaces: &[Space<'_>], wishes: &Wishes) -> Option<Duration> {
    let can = |goal| choose(spaces, goal, wishes.probes_per_second).0;
    let mut enough = LONGEST.max(wishes.target);
    if !can(enough) {
        return None;
    }
    let mut short = wishes.target;
    while enough.as_secs_f64() > short.as_secs_f64() * REACHABLE_STEP {
        let middle = Duration::from_secs_f64((short.as_secs_f64() * enough.as_secs_f64()).sqrt());
        if can(middle) {
            enough = middle;
        } else {
            short = middle;
        }
    }
    Some(whole(enough))
}

/// The next millisecond: what is named must be reachable.
fn whole(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_secs_f64().mul_add(1e3, 1.0) as u64)
}

/// Has the simulator confirm the choice for `goal`, or one for a shorter goal if the window turns
/// out longer. The shortest 99th percentile that was seen, if none is confirmed.
fn confirm(
    space: &Space<'_>,
    goal: Duration,
    look: &mut dyn FnMut(Detect) -> State,
) -> Result<State, Duration> {
    let (mut aim, mut least) = (goal, Duration::MAX);
    for _ in 0..ROUNDS {
        let Ok(choice) = space.choose(aim) else { break };
        let state = look(choice.detect);
        let found = state.slowest.map_or(Duration::ZERO, |slowest| slowest.p99);
        if found <= goal {
            return Ok(state);
        }
        least = least.min(found);
        aim = aim.mul_f64(MARGIN * goal.as_secs_f64() / found.as_secs_f64());
    }
    Err(least)
}

fn state(
    pool: &PoolSpec,
    subject: &Subject<'_>,
    here: Option<&Place>,
    faults: &[Fault],
    base: Instant,
) -> State {
    let prediction = predict::predict(pool, here, &subject.question, base);
    let counts = |row: &&Row| row.traffic_rps.is_none() && faults.contains(&row.fault);
    let slowest = prediction.rows.iter().filter(counts).filter_map(|row| match row.window {
        Window::Seen { spread, .. } => Some(Slowest { row: *row, p99: spread.p99 }),
        Window::Unseen(_) => None,
    });
    State {
        detect: pool.detect,
        probes_per_second: probes_per_second(pool),
        false_yearly: false_yearly(pool, subject),
        slowest: slowest.max_by_key(|slowest| slowest.p99),
        prediction,
    }
}

/// Endpoints of a pool.
fn endpoints(pool: &PoolSpec) -> usize {
    pool.zones.iter().map(|zone| zone.endpoints.len()).sum()
}

/// Probes a second of a pool whose endpoints are all up and not vouched for by traffic.
#[must_use]
pub fn probes_per_second(pool: &PoolSpec) -> f64 {
    let period = pool.detect.interval.as_secs_f64() * falsely::MEAN_PERIOD;
    (endpoints(pool) * pool.probes.len().max(1)) as f64 / period
}

/// False verdicts a year on all of a pool's endpoints together, by probes alone, with what was
/// observed of the subject.
#[must_use]
pub fn false_yearly(pool: &PoolSpec, subject: &Subject<'_>) -> f64 {
    falsely::probes_alone(pool, &world(subject)) * endpoints(pool) as f64
}

/// The chance that a probe of an endpoint that is well fails, in 0..=1.
#[must_use]
pub fn strike_chance(pool: &PoolSpec, subject: &Subject<'_>) -> f64 {
    falsely::strike_chance(pool, &world(subject))
}

/// A world of which nothing fails.
fn world(subject: &Subject<'_>) -> falsely::Question {
    let predict::Question { seed, round_trip, ref latency, threads, .. } = subject.question;
    falsely::Question {
        hours: None,
        seed,
        round_trip,
        rate_rps: None,
        probe_loss: subject.probe_loss,
        traffic_loss: 0.0,
        latency: Latency::clone(latency),
        threads,
    }
}

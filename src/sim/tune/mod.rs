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

use crate::logic::model::id::Locality;
use crate::logic::model::topology::{DetectionSpec, PoolSpec};

use super::latency::LatencyModel;
use super::predict::false_positives;
use super::predict::{
    self, FaultKind, PredictedWindow, Prediction, PredictionRow, UndetectedReason,
};
use search::{SearchSpace, WindowChoice};

/// How often a choice is tried in the simulator, at most.
const MAX_CONFIRM_ROUNDS: u32 = 5;

/// A target is shortened by this much more than it was missed by.
const RETRY_MARGIN: f64 = 0.99;

/// No window is sought that is longer.
const MAX_TARGET: Duration = Duration::from_secs(600);

/// The best window that can be reached is found to within this share.
const REACHABLE_STEP: f64 = 1.02;

/// What the window must be.
#[derive(Clone, Debug)]
pub struct TuneGoals {
    /// The 99th percentile of the window of every fault that counts, by active probes alone.
    pub target: Duration,
    /// The faults that count.
    pub faults: Vec<FaultKind>,
    /// Whether one that no probe of a pool sees makes the target unreachable, or does not count.
    pub should_detect_all: bool,
    /// False verdicts a year on all endpoints of the tuned pools together; less is kept.
    pub false_verdicts_yearly: f64,
    /// Probes a second of the whole configuration; not more.
    pub probes_per_second: f64,
}

/// A pool that is to be tuned, and what was observed of it.
#[derive(Clone, Debug)]
pub struct TuneSubject<'a> {
    pub pool: &'a PoolSpec,
    /// How it is simulated: with its latency and its round trip.
    pub input: predict::PredictionInput,
    /// The share of a probe's attempts, in 0..1, that get no answer.
    pub probe_loss: f64,
}

/// What keeps a target from being met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TuneConstraint {
    /// This fault is asked for, and no probe of the pool notices it.
    Undetected(FaultKind, UndetectedReason),
    /// A probe must wait this long for an endpoint that is well.
    Timeout(Duration),
    /// More false verdicts than wished; this many a year are the least.
    FalseVerdicts(f64),
    /// The simulator finds this 99th percentile, whatever is tried.
    Simulation(Duration),
}

/// A window with all that is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowEvaluation {
    pub detect: DetectionSpec,
    /// Probes a second of the pool while all is well.
    pub probes_per_second: f64,
    /// False verdicts a year on all of the pool's endpoints, by probes alone.
    pub false_verdicts_yearly: f64,
    /// What the simulator says.
    pub prediction: Prediction,
    /// The longest 99th percentile of the rows that count; `None` if none does.
    pub slowest: Option<SlowestRow>,
}

/// The row that decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowestRow {
    pub row: PredictionRow,
    pub p99: Duration,
}

/// One pool, before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct TunedPool {
    pub pool: Arc<str>,
    pub before: WindowEvaluation,
    /// As found; of a target that cannot be met, the best that can.
    pub after: Option<WindowEvaluation>,
    /// What is in the way, of this pool's own.
    pub constraints: Vec<TuneConstraint>,
}

/// What came of it all.
#[derive(Clone, Debug, PartialEq)]
pub struct TuneResult {
    /// Every pool that was to be tuned.
    pub pools: Vec<TunedPool>,
    /// Whether every one of them meets the target within all bounds.
    pub is_met: bool,
    /// The shortest target that could be met, if this one cannot.
    pub reachable: Option<Duration>,
    /// Probes a second that are left to the tuned pools.
    pub budget_probes_per_second: f64,
    /// The least that they need for the target, if that is more.
    pub required_probes_per_second: Option<f64>,
}

/// Tunes these pools together; `here` is where this instance stands, `base` any instant. `told` hears
/// what is being done, for whoever waits.
pub fn tune(
    subjects: &[TuneSubject<'_>],
    local_zone: Option<&Locality>,
    goals: &TuneGoals,
    base: Instant,
    on_progress: &mut dyn FnMut(&str),
) -> TuneResult {
    let endpoints: usize = subjects.iter().map(|subject| endpoint_count(subject.pool)).sum();
    let spaces: Vec<SearchSpace<'_>> = subjects
        .iter()
        .map(|subject| {
            let share = endpoint_count(subject.pool) as f64 / endpoints.max(1) as f64;
            SearchSpace::new(subject, goals, goals.false_verdicts_yearly * share, base)
        })
        .collect();
    let (met, over_budget) = check_goal(&spaces, goals.target, goals.probes_per_second);
    let reachable = if met { None } else { shortest_reachable(&spaces, goals) };
    let mut answer = TuneResult {
        pools: Vec::new(),
        is_met: met,
        reachable,
        budget_probes_per_second: goals.probes_per_second,
        required_probes_per_second: over_budget,
    };
    for (subject, space) in subjects.iter().zip(&spaces) {
        let name = &subject.pool.name;
        let mut evaluate = |detect: DetectionSpec, what: &str| {
            on_progress(&format!("pool {name}: {what}"));
            let pool = PoolSpec { detect, ..subject.pool.clone() };
            evaluate_window(&pool, subject, local_zone, &goals.faults, base)
        };
        let before = evaluate(subject.pool.detect, "as it is");
        let mut binding = space.choose_window(goals.target).err().unwrap_or_default();
        let mut after = None;
        if met {
            match confirm_by_simulation(space, goals.target, &mut |detect| {
                evaluate(detect, "as it would be")
            }) {
                Ok(state) => after = Some(state),
                Err(p99) => binding.push(TuneConstraint::Simulation(p99)),
            }
        } else if let Some(goal) = reachable
            && let Ok(choice) = space.choose_window(goal)
        {
            // At the edge there is nothing shorter to aim at: what the simulator finds is what can
            // be had.
            let state = evaluate(choice.detect, "the best that can be had");
            let found = state.slowest.map(|slowest| round_up_to_ms(slowest.p99));
            answer.reachable = answer.reachable.max(found);
            after = Some(state);
        }
        answer.pools.push(TunedPool {
            pool: Arc::clone(name),
            before,
            after,
            constraints: binding,
        });
    }
    let after = answer.pools.iter().filter_map(|pool| pool.after.as_ref());
    let probing: f64 = after.map(|state| state.probes_per_second).sum();
    // What the simulator had shortened may be too much for the budget.
    answer.required_probes_per_second = answer
        .required_probes_per_second
        .or_else(|| (probing > answer.budget_probes_per_second).then_some(probing));
    answer.is_met = answer.required_probes_per_second.is_none()
        && answer.pools.iter().all(|pool| pool.constraints.is_empty() && pool.after.is_some());
    answer
}

/// Whether all pools together can meet `goal`; if only the budget says no, how many probes a second
/// it would take.
fn check_goal(spaces: &[SearchSpace<'_>], goal: Duration, budget: f64) -> (bool, Option<f64>) {
    let choices: Option<Vec<WindowChoice>> =
        spaces.iter().map(|space| space.choose_window(goal).ok()).collect();
    let Some(choices) = choices else { return (false, None) };
    let needed: f64 = choices.iter().map(|choice| choice.probes_per_second).sum();
    if needed <= budget { (true, None) } else { (false, Some(needed)) }
}

/// The shortest target that all pools can meet within all bounds.
fn shortest_reachable(spaces: &[SearchSpace<'_>], goals: &TuneGoals) -> Option<Duration> {
    let can_reach = |goal| check_goal(spaces, goal, goals.probes_per_second).0;
    let mut enough = MAX_TARGET.max(goals.target);
    if !can_reach(enough) {
        return None;
    }
    let mut short = goals.target;
    while enough.as_secs_f64() > short.as_secs_f64() * REACHABLE_STEP {
        let middle = Duration::from_secs_f64((short.as_secs_f64() * enough.as_secs_f64()).sqrt());
        if can_reach(middle) {
            enough = middle;
        } else {
            short = middle;
        }
    }
    Some(round_up_to_ms(enough))
}

/// The next millisecond: what is named must be reachable.
fn round_up_to_ms(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_secs_f64().mul_add(1e3, 1.0) as u64)
}

/// Has the simulator confirm the choice for `goal`, or one for a shorter goal if the window turns
/// out longer. The shortest 99th percentile that was seen, if none is confirmed.
fn confirm_by_simulation(
    space: &SearchSpace<'_>,
    goal: Duration,
    evaluate: &mut dyn FnMut(DetectionSpec) -> WindowEvaluation,
) -> Result<WindowEvaluation, Duration> {
    let (mut aim, mut least) = (goal, Duration::MAX);
    for _ in 0..MAX_CONFIRM_ROUNDS {
        let Ok(choice) = space.choose_window(aim) else { break };
        let state = evaluate(choice.detect);
        let found = state.slowest.map_or(Duration::ZERO, |slowest| slowest.p99);
        if found <= goal {
            return Ok(state);
        }
        least = least.min(found);
        aim = aim.mul_f64(RETRY_MARGIN * goal.as_secs_f64() / found.as_secs_f64());
    }
    Err(least)
}

fn evaluate_window(
    pool: &PoolSpec,
    subject: &TuneSubject<'_>,
    local_zone: Option<&Locality>,
    faults: &[FaultKind],
    base: Instant,
) -> WindowEvaluation {
    let prediction = predict::predict(pool, local_zone, &subject.input, base);
    let is_counted =
        |row: &&PredictionRow| row.traffic_rps.is_none() && faults.contains(&row.fault);
    let slowest = prediction.rows.iter().filter(is_counted).filter_map(|row| match row.window {
        PredictedWindow::Detected { spread, .. } => Some(SlowestRow { row: *row, p99: spread.p99 }),
        PredictedWindow::Undetected(_) => None,
    });
    WindowEvaluation {
        detect: pool.detect,
        probes_per_second: probes_per_second(pool),
        false_verdicts_yearly: false_verdicts_yearly(pool, subject),
        slowest: slowest.max_by_key(|slowest| slowest.p99),
        prediction,
    }
}

/// Endpoints of a pool.
fn endpoint_count(pool: &PoolSpec) -> usize {
    pool.zones.iter().map(|zone| zone.endpoints.len()).sum()
}

/// Probes a second of a pool whose endpoints are all up and not vouched for by traffic.
pub fn probes_per_second(pool: &PoolSpec) -> f64 {
    let period = pool.detect.interval.as_secs_f64() * false_positives::MEAN_PERIOD;
    (endpoint_count(pool) * pool.probes.len().max(1)) as f64 / period
}

/// False verdicts a year on all of a pool's endpoints together, by probes alone, with what was
/// observed of the subject.
pub fn false_verdicts_yearly(pool: &PoolSpec, subject: &TuneSubject<'_>) -> f64 {
    false_positives::yearly_by_probes(pool, &false_positive_input(subject))
        * endpoint_count(pool) as f64
}

/// The chance that a probe of an endpoint that is well fails, in 0..=1.
pub fn strike_chance(pool: &PoolSpec, subject: &TuneSubject<'_>) -> f64 {
    false_positives::strike_chance(pool, &false_positive_input(subject))
}

/// A world of which nothing fails.
fn false_positive_input(subject: &TuneSubject<'_>) -> false_positives::FalsePositiveInput {
    let predict::PredictionInput { seed, round_trip, ref latency, threads, .. } = subject.input;
    false_positives::FalsePositiveInput {
        hours: None,
        seed,
        round_trip,
        rate_rps: None,
        probe_loss: subject.probe_loss,
        traffic_loss: 0.0,
        latency: LatencyModel::clone(latency),
        threads,
    }
}

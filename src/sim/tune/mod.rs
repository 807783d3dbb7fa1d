//! The detection window that meets a target with the fewest probes.
//!
//! The closed form searches: for each number of strikes and each timeout, the longest interval that
//! meets the target. Of those within the other bounds the longest interval is chosen. A tenth of it
//! is spent on a longer timeout. The simulator, with the production director, confirms the choice.
//! Where its window is longer, the search is repeated for a target that is shorter by as much.

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

/// The maximum number of choices that are simulated.
const MAX_CONFIRM_ROUNDS: u32 = 5;

/// The further factor by which a missed target is shortened.
const RETRY_MARGIN: f64 = 0.99;

/// The longest target.
const MAX_TARGET: Duration = Duration::from_secs(600);

/// The relative precision of the best reachable target.
const REACHABLE_STEP: f64 = 1.02;

/// The requirements on the window.
#[derive(Clone, Debug)]
pub struct TuneGoals {
    /// The bound on the 99th percentile of the window, over all `faults`, by active probes alone.
    pub target: Duration,
    /// The faults that must be detected in time.
    pub faults: Vec<FaultKind>,
    /// Whether a fault that no probe of a pool detects makes the target unreachable; else it is
    /// left out.
    pub should_detect_all: bool,
    /// False verdicts per year on all endpoints of the tuned pools together; an exclusive bound.
    pub false_verdicts_yearly: f64,
    /// The maximum of probes per second of the whole configuration.
    pub probes_per_second: f64,
}

/// A pool to tune, with observations of it.
#[derive(Clone, Debug)]
pub struct TuneSubject<'a> {
    pub pool: &'a PoolSpec,
    /// The input of its simulation, with its latency and its round trip.
    pub input: predict::PredictionInput,
    /// The share of probe attempts, in 0..1, that get no result.
    pub probe_loss: f64,
}

/// The reason why a target is not met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TuneConstraint {
    /// No probe of the pool detects this fault.
    Undetected(FaultKind, UndetectedReason),
    /// A probe needs at least this timeout for a healthy endpoint.
    Timeout(Duration),
    /// The minimum of false verdicts per year exceeds the bound.
    FalseVerdicts(f64),
    /// The simulated 99th percentile of every choice exceeds the target; this is the shortest.
    Simulation(Duration),
}

/// A window with its cost and its prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowEvaluation {
    pub detect: DetectionSpec,
    /// Probes per second of the pool while it is healthy.
    pub probes_per_second: f64,
    /// False verdicts per year on all of the pool's endpoints, by probes alone.
    pub false_verdicts_yearly: f64,
    /// The simulated windows.
    pub prediction: Prediction,
    /// The longest 99th percentile of the rows that count; `None` without such a row.
    pub slowest: Option<SlowestRow>,
}

/// The row with the longest 99th percentile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowestRow {
    pub row: PredictionRow,
    pub p99: Duration,
}

/// One pool, before and after tuning.
#[derive(Clone, Debug, PartialEq)]
pub struct TunedPool {
    pub pool: Arc<str>,
    pub before: WindowEvaluation,
    /// The window found; for a target that cannot be met, the best reachable one.
    pub after: Option<WindowEvaluation>,
    /// The reasons why this pool misses the target.
    pub constraints: Vec<TuneConstraint>,
}

/// The result for all pools.
#[derive(Clone, Debug, PartialEq)]
pub struct TuneResult {
    /// Every tuned pool.
    pub pools: Vec<TunedPool>,
    /// Whether every pool meets the target within all bounds.
    pub is_met: bool,
    /// The shortest reachable target, if this one is not.
    pub reachable: Option<Duration>,
    /// The budget of probes per second for the tuned pools.
    pub budget_probes_per_second: f64,
    /// The probes per second that the target needs, if they exceed the budget.
    pub required_probes_per_second: Option<f64>,
}

/// Tunes these pools together. `local_zone` is the zone of this instance, `base` any instant;
/// `on_progress` receives a line before each simulation.
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
    let (is_reachable, over_budget) = check_goal(&spaces, goals.target, goals.probes_per_second);
    let reachable = if is_reachable { None } else { shortest_reachable(&spaces, goals) };
    let mut result = TuneResult {
        pools: Vec::new(),
        is_met: is_reachable,
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
        let mut constraints = space.choose_window(goals.target).err().unwrap_or_default();
        let mut after = None;
        if is_reachable {
            match confirm_by_simulation(space, goals.target, &mut |detect| {
                evaluate(detect, "as it would be")
            }) {
                Ok(state) => after = Some(state),
                Err(p99) => constraints.push(TuneConstraint::Simulation(p99)),
            }
        } else if let Some(goal) = reachable
            && let Ok(choice) = space.choose_window(goal)
        {
            // No shorter target is reachable: the simulated window is the best.
            let state = evaluate(choice.detect, "the best that can be had");
            let found = state.slowest.map(|slowest| round_up_to_ms(slowest.p99));
            result.reachable = result.reachable.max(found);
            after = Some(state);
        }
        result.pools.push(TunedPool { pool: Arc::clone(name), before, after, constraints });
    }
    let after = result.pools.iter().filter_map(|pool| pool.after.as_ref());
    let probing: f64 = after.map(|state| state.probes_per_second).sum();
    // A target that was shortened after a simulation may exceed the budget.
    result.required_probes_per_second = result
        .required_probes_per_second
        .or_else(|| (probing > result.budget_probes_per_second).then_some(probing));
    result.is_met = result.required_probes_per_second.is_none()
        && result.pools.iter().all(|pool| pool.constraints.is_empty() && pool.after.is_some());
    result
}

/// Whether all pools together can meet `goal`; if only the budget prevents it, the probes per
/// second that it needs.
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

/// Rounds up to the next millisecond, so that the rounded target is reachable.
fn round_up_to_ms(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_secs_f64().mul_add(1e3, 1.0) as u64)
}

/// Simulates the choice for `goal`, and for shorter goals while the window is longer than `goal`.
/// `Err` is the shortest 99th percentile of all choices.
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

/// The number of endpoints of a pool.
fn endpoint_count(pool: &PoolSpec) -> usize {
    pool.zones.iter().map(|zone| zone.endpoints.len()).sum()
}

/// Probes per second of a pool whose endpoints are all up and have no traffic.
pub fn probes_per_second(pool: &PoolSpec) -> f64 {
    let period = pool.detect.interval.as_secs_f64() * false_positives::MEAN_PERIOD;
    (endpoint_count(pool) * pool.probes.len().max(1)) as f64 / period
}

/// False verdicts per year on all of a pool's endpoints together, by probes alone, with the losses
/// observed of the subject.
pub fn false_verdicts_yearly(pool: &PoolSpec, subject: &TuneSubject<'_>) -> f64 {
    false_positives::yearly_by_probes(pool, &false_positive_input(subject))
        * endpoint_count(pool) as f64
}

/// The chance, in 0..=1, that a probe of a healthy endpoint fails.
pub fn strike_chance(pool: &PoolSpec, subject: &TuneSubject<'_>) -> f64 {
    false_positives::strike_chance(pool, &false_positive_input(subject))
}

/// The input for a healthy pool.
fn false_positive_input(subject: &TuneSubject<'_>) -> false_positives::FalsePositiveInput {
    let predict::PredictionInput { seed, round_trip, ref latency, workers, threads, .. } =
        subject.input;
    false_positives::FalsePositiveInput {
        hours: None,
        seed,
        round_trip,
        rate_rps: None,
        probe_loss: subject.probe_loss,
        traffic_loss: 0.0,
        latency: LatencyModel::clone(latency),
        workers,
        threads,
    }
}

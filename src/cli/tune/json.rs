//! The answer as JSON.

use serde_json::{Value, json};

use super::{Asked, pairs, toml};
use crate::cli::predict::{ms, rows, word};
use crate::logic::topology::Detect;
use crate::sim::tune::{Answer, Constraint, State};

/// The whole answer.
pub(super) fn object(asked: &Asked<'_>, answer: &Answer) -> Value {
    let wishes = &asked.wishes;
    let pools = pairs(asked, answer).map(|(subject, tuned)| {
        let binding: Vec<Value> = tuned.binding.iter().map(constraint).collect();
        json!({
            "pool": *tuned.pool,
            "rtt_ms": ms(subject.question.round_trip),
            "probe_loss": subject.probe_loss,
            "binding": binding,
            "before": state(&tuned.before),
            "after": tuned.after.as_ref().map(state),
            "toml": tuned.after.as_ref().map(|after| toml::table(&tuned.pool, &after.detect)),
        })
    });
    let sum = |of: &dyn Fn(&State) -> f64| {
        let before: f64 = answer.pools.iter().map(|pool| of(&pool.before)).sum();
        let after: Option<f64> = answer.pools.iter().map(|pool| pool.after.as_ref().map(of)).sum();
        (before, after)
    };
    let probes = sum(&|state| state.probes_per_second);
    let falsely = sum(&|state| state.false_yearly);
    let others = asked.others;
    json!({
        "target_ms": ms(wishes.target),
        "with_traffic": false,
        "met": answer.is_met,
        "reachable_ms": answer.reachable.map(ms),
        "probes_per_second": {
            "before": probes.0 + others,
            "after": probes.1.map(|after| after + others),
            "budget": answer.budget + others,
            "needed": answer.over_budget.map(|needed| needed + others),
        },
        "false_verdicts_per_year": {
            "before": falsely.0,
            "after": falsely.1,
            "bound": wishes.false_yearly,
        },
        "not_observed": asked.unknown,
        "pools": pools.collect::<Vec<_>>(),
    })
}

fn state(state: &State) -> Value {
    let Detect { interval, timeout, fast_interval, down_interval, down_after, up_after, target } =
        state.detect;
    let slowest = state.slowest.map(|slowest| {
        json!({
            "scope": slowest.row.scope.as_str(),
            "class": slowest.row.fault.as_str(),
            "p99_ms": ms(slowest.p99),
        })
    });
    json!({
        "detect": {
            "interval_ms": ms(interval),
            "timeout_ms": ms(timeout),
            "fast_interval_ms": ms(fast_interval),
            "down_interval_ms": ms(down_interval),
            "down_after": down_after,
            "up_after": up_after,
            "target_ms": target.map(ms),
        },
        "probes_per_second": state.probes_per_second,
        "false_verdicts_per_year": state.false_yearly,
        "slowest": slowest,
        "rows": rows(&state.prediction),
    })
}

fn constraint(constraint: &Constraint) -> Value {
    match constraint {
        Constraint::Unseen(fault, why) => {
            json!({ "constraint": "probe", "class": fault.as_str(), "unseen": word(*why) })
        }
        Constraint::Timeout(least) => {
            json!({ "constraint": "timeout", "least_ms": ms(*least) })
        }
        Constraint::FalseVerdicts(least) => {
            json!({ "constraint": "false_verdicts", "least_per_year": least })
        }
        Constraint::Simulation(p99) => {
            json!({ "constraint": "simulation", "p99_ms": ms(*p99) })
        }
    }
}

//! The result as JSON.

use serde_json::{Value, json};

use super::{TuningRequest, subjects_with_results, toml};
use crate::cli::predict::{rows_json, to_ms, unseen_word};
use crate::logic::model::topology::DetectionSpec;
use crate::sim::tune::{TuneConstraint, TuneResult, WindowEvaluation};

pub(super) fn tuning_json(request: &TuningRequest<'_>, result: &TuneResult) -> Value {
    let requirements = &request.requirements;
    let pools = subjects_with_results(request, result).map(|(subject, tuned)| {
        let binding: Vec<Value> = tuned.constraints.iter().map(constraint_json).collect();
        json!({
            "pool": *tuned.pool,
            "rtt_ms": to_ms(subject.input.round_trip),
            "probe_loss": subject.probe_loss,
            "binding": binding,
            "before": window_json(&tuned.before),
            "after": tuned.after.as_ref().map(window_json),
            "toml": tuned.after.as_ref().map(|after| toml::detect_table(&tuned.pool, &after.detect)),
        })
    });
    let sum = |of: &dyn Fn(&WindowEvaluation) -> f64| {
        let before: f64 = result.pools.iter().map(|pool| of(&pool.before)).sum();
        let after: Option<f64> = result.pools.iter().map(|pool| pool.after.as_ref().map(of)).sum();
        (before, after)
    };
    let probes = sum(&|state| state.probes_per_second);
    let false_verdicts = sum(&|state| state.false_verdicts_yearly);
    let others = request.other_probes_per_second;
    json!({
        "target_ms": to_ms(requirements.target),
        "with_traffic": false,
        "met": result.is_met,
        "reachable_ms": result.reachable.map(to_ms),
        "probes_per_second": {
            "before": probes.0 + others,
            "after": probes.1.map(|after| after + others),
            "budget": result.budget_probes_per_second + others,
            "needed": result.required_probes_per_second.map(|needed| needed + others),
        },
        "false_verdicts_per_year": {
            "before": false_verdicts.0,
            "after": false_verdicts.1,
            "bound": requirements.false_verdicts_yearly,
        },
        "not_observed": request.unobserved_pools,
        "pools": pools.collect::<Vec<_>>(),
    })
}

fn window_json(state: &WindowEvaluation) -> Value {
    let DetectionSpec {
        interval,
        timeout,
        fast_interval,
        down_interval,
        down_after,
        up_after,
        target,
    } = state.detect;
    let slowest = state.slowest.map(|slowest| {
        json!({
            "scope": slowest.row.scope.as_str(),
            "class": slowest.row.fault.as_str(),
            "p99_ms": to_ms(slowest.p99),
        })
    });
    json!({
        "detect": {
            "interval_ms": to_ms(interval),
            "timeout_ms": to_ms(timeout),
            "fast_interval_ms": to_ms(fast_interval),
            "down_interval_ms": to_ms(down_interval),
            "down_after": down_after,
            "up_after": up_after,
            "target_ms": target.map(to_ms),
        },
        "probes_per_second": state.probes_per_second,
        "false_verdicts_per_year": state.false_verdicts_yearly,
        "slowest": slowest,
        "rows": rows_json(&state.prediction),
    })
}

fn constraint_json(constraint: &TuneConstraint) -> Value {
    match constraint {
        TuneConstraint::Undetected(fault, why) => {
            json!({ "constraint": "probe", "class": fault.as_str(), "unseen": unseen_word(*why) })
        }
        TuneConstraint::Timeout(least) => {
            json!({ "constraint": "timeout", "least_ms": to_ms(*least) })
        }
        TuneConstraint::FalseVerdicts(least) => {
            json!({ "constraint": "false_verdicts", "least_per_year": least })
        }
        TuneConstraint::Simulation(p99) => {
            json!({ "constraint": "simulation", "p99_ms": to_ms(*p99) })
        }
    }
}

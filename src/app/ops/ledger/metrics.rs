//! Metrics of the ledger, of error budgets and of burn rates.

use std::fmt::Display;
use std::sync::atomic::Ordering::Relaxed;

use crate::app::ops::metrics::{Collect, FamilyWriter, families};
use crate::logic::incident::slo::{BURN_RATE_ALERTS, SloWindow};

use super::LedgerHandle;
use super::error_budgets::ObjectiveStatus;

impl Collect for LedgerHandle {
    fn collect(&self, out: &mut FamilyWriter) {
        let gauges = &self.gauges;
        out.gauge(families::LEDGER_INCIDENTS, [], gauges.stored.load(Relaxed) as f64);
        out.flag(families::LEDGER_DURABLE, [], gauges.is_durable.load(Relaxed));
        out.counter(families::LEDGER_DROPPED, [], gauges.dropped.load(Relaxed));
        out.counter(families::LEDGER_WRITE_FAILURES, [], gauges.failed_writes.load(Relaxed));
        for status in &**gauges.objective_statuses.load() {
            status.collect(out);
        }
    }
}

impl Collect for ObjectiveStatus {
    fn collect(&self, out: &mut FamilyWriter) {
        let objective = &self.objective;
        let pool = objective.pool.as_deref().unwrap_or_default();
        let labels: [&dyn Display; 4] =
            [&objective.kind_text(), &objective.scope, &objective.name, &pool];
        out.gauge(families::SLO_OBJECTIVE, labels, objective.target_share);
        let [kind, scope, name, pool] = labels;
        for (window, counts) in SloWindow::BUDGET_WINDOWS.into_iter().zip(self.budgets) {
            let labels = [kind, scope, name, pool, &window.as_str()];
            let left = counts.budget_left(objective.target_share);
            out.gauge(families::SLO_GOOD, labels, counts.good_ratio());
            out.gauge(families::SLO_REQUESTS, labels, counts.total as f64);
            out.gauge(families::SLO_BUDGET_LEFT, labels, left);
        }
        for window in SloWindow::BURN_RATE_WINDOWS {
            let labels = [kind, scope, name, pool, &window.as_str()];
            out.gauge(families::SLO_BURN_RATE, labels, self.burn_rate(window));
        }
        for alert in &BURN_RATE_ALERTS {
            let labels = [kind, scope, name, pool, &alert.name];
            out.flag(families::SLO_ALERT, labels, self.is_alerting(alert));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::error_budgets::{ObjectiveKind, SloObjective};
    use super::*;
    use crate::app::ops::metrics::render;
    use crate::logic::incident::slo::SloCounts;

    #[test]
    fn burning_budget_sets_the_alert_gauge() {
        let objective = SloObjective {
            kind: ObjectiveKind::Availability,
            scope: "route",
            name: "a\"b".to_owned(),
            pool: None,
            target_share: 0.99,
        };
        let counts = SloCounts { total: 100, bad: 50 };
        let status = ObjectiveStatus { objective, budgets: [counts; 3], burns: [counts; 4] };
        let page = render(Instant::now(), &[&status]);
        let labels = "objective=\"availability\",scope=\"route\",name=\"a\\\"b\",pool=\"\"";
        for sample in [
            format!("gapless_slo_objective_ratio{{{labels}}} 0.99"),
            format!("gapless_slo_good_ratio{{{labels},window=\"30d\"}} 0.5"),
            format!("gapless_slo_alert{{{labels},alert=\"fast\"}} 1"),
        ] {
            assert!(page.lines().any(|line| line == sample), "{sample}\n{page}");
        }
    }
}

//! Error budgets: requests and failures by objective, over thirty days.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::dataplane::request_metrics::{RequestMetrics, RoutePoolCounts};
use crate::logic::incident::slo::{
    BurnRateAlert, LatencyObjective, SloCounts, SloHistory, SloObjectives, SloWindow,
};
use crate::logic::model::endpoint_stats::AttemptCounts;
use crate::logic::model::id::Locality;
use crate::logic::model::topology::PoolSpec;

/// Limit of stored histories; each takes about 25 KiB.
const MAX_SERIES: usize = 1_000;

/// Time constant of the average request rate.
const RATE_AVERAGE_WINDOW: Duration = Duration::from_secs(10);

/// What an objective measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ObjectiveKind {
    Availability,
    Latency(Duration),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct SloObjective {
    pub(super) kind: ObjectiveKind,
    pub(super) scope: &'static str,
    /// Name of the route, pool, zone or region.
    pub(super) name: String,
    /// The pool, if the scope is a zone or a region.
    pub(super) pool: Option<String>,
    pub(super) target_share: f64,
}

impl SloObjective {
    fn new(kind: ObjectiveKind, scope: &'static str, name: &str, share: f64) -> Self {
        Self { kind, scope, name: name.to_owned(), pool: None, target_share: share }
    }

    pub(super) fn kind_text(&self) -> &'static str {
        match self.kind {
            ObjectiveKind::Availability => "availability",
            ObjectiveKind::Latency(_) => "latency",
        }
    }

    /// Key of its history, in memory and on disk.
    fn series_key(&self) -> String {
        let pool = self.pool.as_deref().unwrap_or_default();
        format!("{} {} {pool} {}", self.kind_text(), self.scope, self.name)
    }
}

/// Measurements for one objective.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ObjectiveStatus {
    pub(super) objective: SloObjective,
    /// Over [`SloWindow::BUDGET_WINDOWS`].
    pub(super) budgets: [SloCounts; 3],
    /// Over [`SloWindow::BURN_RATE_WINDOWS`].
    pub(super) burns: [SloCounts; 4],
}

impl ObjectiveStatus {
    pub(super) fn burn_rate(&self, span: SloWindow) -> f64 {
        let index = SloWindow::BURN_RATE_WINDOWS.iter().position(|one| *one == span);
        index.map_or(0.0, |index| self.burns[index].burn_rate(self.objective.target_share))
    }

    pub(super) fn is_alerting(&self, alert: &BurnRateAlert) -> bool {
        let least = alert.burn_rate;
        self.burn_rate(alert.long_window) >= least && self.burn_rate(alert.short_window) >= least
    }
}

/// All objectives and their histories, owned by the ledger thread.
#[derive(Debug, Default)]
pub(super) struct ErrorBudgets {
    objectives: Vec<SloObjective>,
    series: BTreeMap<String, SloHistory>,
    route_pools: HashMap<(Arc<str>, Arc<str>), RoutePoolCounts>,
    zones: HashMap<(Arc<str>, Locality), SloCounts>,
    answered: HashMap<Arc<str>, u64>,
    rates: HashMap<Arc<str>, f64>,
    last_sample: Option<Instant>,
    is_dirty: bool,
}

impl ErrorBudgets {
    pub(super) fn configure(
        &mut self,
        routes: &[(Arc<str>, SloObjectives)],
        pools: &[Arc<PoolSpec>],
    ) {
        self.objectives.clear();
        for (name, slo) in routes {
            self.add_objectives("route", name, slo);
        }
        for (pool, slo) in pools.iter().filter_map(|pool| Some((pool, pool.slo?))) {
            self.add_objectives("pool", &pool.name, &slo);
            let Some(share) = slo.availability else { continue };
            let mut regions: Vec<String> = Vec::new();
            let mut within = |scope, name: &str| {
                let objective = SloObjective::new(ObjectiveKind::Availability, scope, name, share);
                let pool = Some(pool.name.to_string());
                self.objectives.push(SloObjective { pool, ..objective });
            };
            for zone in &pool.zones {
                within("zone", &zone.locality.to_string());
                let region = zone.locality.region.to_string();
                if !regions.contains(&region) {
                    regions.push(region);
                }
            }
            regions.iter().for_each(|region| within("region", region));
        }
        self.objectives.truncate(MAX_SERIES);
    }

    fn add_objectives(&mut self, scope: &'static str, name: &str, slo: &SloObjectives) {
        if let Some(share) = slo.availability {
            self.objectives.push(SloObjective::new(
                ObjectiveKind::Availability,
                scope,
                name,
                share,
            ));
        }
        if let Some(LatencyObjective { target_ratio: share, threshold: under }) = slo.latency {
            self.objectives.push(SloObjective::new(
                ObjectiveKind::Latency(under),
                scope,
                name,
                share,
            ));
        }
    }

    /// Adds the requests counted by workers since the last sample.
    pub(super) fn sample(&mut self, metrics: &RequestMetrics, now: Instant, now_s: u64) {
        self.update_rates(metrics, now);
        let live_keys: HashSet<String> =
            self.objectives.iter().map(SloObjective::series_key).collect();
        let mut add = |kind: &str, scope: &str, name: &str, counts: SloCounts| {
            let key = format!("{kind} {scope}  {name}");
            if counts.total > 0 && live_keys.contains(&key) {
                self.series.entry(key).or_default().add(counts, now_s);
                self.is_dirty = true;
            }
        };
        for (route_pool, counts) in metrics.route_pool_counts() {
            let before = self.route_pools.insert(route_pool.clone(), counts).unwrap_or_default();
            let counts_of = |total, bad| SloCounts { total, bad };
            let since =
                |read: fn(&RoutePoolCounts) -> u64| read(&counts).saturating_sub(read(&before));
            let (all, failed) = (since(|c| c.all), since(|c| c.failed));
            let answered = all.saturating_sub(failed);
            let (route, pool) = &route_pool;
            add("availability", "route", route, counts_of(all, failed.min(all)));
            add("availability", "pool", pool, counts_of(all, failed.min(all)));
            add(
                "latency",
                "route",
                route,
                counts_of(answered, since(|c| c.slow_for_route).min(answered)),
            );
            add(
                "latency",
                "pool",
                pool,
                counts_of(answered, since(|c| c.slow_for_pool).min(answered)),
            );
        }
    }

    /// Updates the average request rate of each pool.
    fn update_rates(&mut self, metrics: &RequestMetrics, now: Instant) {
        let passed = self.last_sample.map(|looked| now.saturating_duration_since(looked));
        self.last_sample = Some(now);
        for (pool, answered) in metrics.answered_by_pool() {
            let before = self.answered.insert(Arc::clone(&pool), answered).unwrap_or(0);
            let Some(passed) = passed.filter(|passed| !passed.is_zero()) else { continue };
            let rate = answered.saturating_sub(before) as f64 / passed.as_secs_f64();
            let weight = (passed.as_secs_f64() / RATE_AVERAGE_WINDOW.as_secs_f64()).min(1.0);
            let average = self.rates.entry(pool).or_insert(rate);
            *average += (rate - *average) * weight;
        }
    }

    /// Average requests per second of the pool.
    pub(super) fn rate_rps(&self, pool: &str) -> f64 {
        self.rates.get(pool).copied().unwrap_or(0.0)
    }

    /// Adds the attempts of each zone since the last sample.
    pub(super) fn sample_zones(
        &mut self,
        zones: Vec<(Arc<str>, Locality, AttemptCounts)>,
        now_s: u64,
    ) {
        for (pool, place, tries) in zones {
            let counts = SloCounts { total: tries.good + tries.bad, bad: tries.bad };
            let key = (Arc::clone(&pool), place.clone());
            let since = counts.since(self.zones.insert(key, counts).unwrap_or_default());
            for (scope, name) in [("zone", place.to_string()), ("region", place.region.to_string())]
            {
                let key = format!("availability {scope} {pool} {name}");
                if since.total > 0 && self.objectives.iter().any(|one| one.series_key() == key) {
                    self.series.entry(key).or_default().add(since, now_s);
                    self.is_dirty = true;
                }
            }
        }
    }

    /// Adds the histories of earlier processes.
    pub(super) fn load_series(&mut self, stored: &[(String, Vec<u8>)]) {
        for (key, bytes) in stored.iter().take(MAX_SERIES) {
            match SloHistory::from_bytes(bytes) {
                Some(series) => self.series.entry(key.clone()).or_default().merge(&series),
                None => tracing::warn!(key, "an error budget in the ledger cannot be parsed"),
            }
        }
    }

    /// All histories, if any has changed since the last call. The history of a removed objective
    /// stays as long as it has counts.
    pub(super) fn pending_writes(&mut self, now_s: u64) -> Option<Vec<(String, Vec<u8>)>> {
        if !std::mem::take(&mut self.is_dirty) {
            return None;
        }
        let live_keys: HashSet<String> =
            self.objectives.iter().map(SloObjective::series_key).collect();
        self.series.retain(|key, series| {
            live_keys.contains(key)
                || series.totals_in(SloWindow::Days30, now_s) != SloCounts::default()
        });
        Some(self.series.iter().map(|(key, series)| (key.clone(), series.to_bytes())).collect())
    }

    /// Marks all histories for writing, after a failed write.
    pub(super) fn mark_dirty(&mut self) {
        self.is_dirty = true;
    }

    /// Failures that a pool's error budget of thirty days allows; `None` without an availability
    /// objective.
    pub(super) fn allowed_failures(&self, pool: &str, now_s: u64) -> Option<f64> {
        let is_match = |one: &&SloObjective| {
            one.scope == "pool" && one.kind == ObjectiveKind::Availability && one.name == pool
        };
        let objective = self.objectives.iter().find(is_match)?;
        let all =
            self.series.get(&objective.series_key())?.totals_in(SloWindow::Days30, now_s).total;
        Some(all as f64 * (1.0 - objective.target_share))
    }

    /// The status of every objective.
    pub(super) fn objective_statuses(&self, now_s: u64) -> Vec<ObjectiveStatus> {
        let status = |objective: &SloObjective| {
            let series = self.series.get(&objective.series_key());
            let over =
                |span| series.map(|series| series.totals_in(span, now_s)).unwrap_or_default();
            ObjectiveStatus {
                objective: objective.clone(),
                budgets: SloWindow::BUDGET_WINDOWS.map(over),
                burns: SloWindow::BURN_RATE_WINDOWS.map(over),
            }
        };
        self.objectives.iter().map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::incident::slo::BURN_RATE_ALERTS;
    use crate::logic::model::topology::{EndpointSpec, ZoneSpec};
    use crate::logic::routing::{HostMatch, PathMatch, RouteAction, RouteSpec};

    const NOW_S: u64 = 1_700_000_000;

    fn slo() -> SloObjectives {
        let latency = LatencyObjective { target_ratio: 0.9, threshold: Duration::from_millis(100) };
        SloObjectives { availability: Some(0.99), latency: Some(latency) }
    }

    fn pool() -> Arc<PoolSpec> {
        let place = Locality::parse("r/a").expect("a place");
        let endpoint = EndpointSpec { address: ([10, 0, 0, 1], 80).into(), weight: 1 };
        let mut pool = PoolSpec::new("web", vec![ZoneSpec::new(place, vec![endpoint])]);
        pool.slo = Some(slo());
        Arc::new(pool)
    }

    fn budgets() -> ErrorBudgets {
        let mut budgets = ErrorBudgets::default();
        budgets.configure(&[("api".into(), slo())], &[pool()]);
        budgets
    }

    fn counts(budgets: &ErrorBudgets, kind: &str, scope: &str) -> SloCounts {
        let statuses = budgets.objective_statuses(NOW_S);
        let is_match = |one: &&ObjectiveStatus| {
            one.objective.kind_text() == kind && one.objective.scope == scope
        };
        statuses.iter().find(is_match).expect("an objective").budgets[0]
    }

    #[test]
    fn sampled_counts_are_applied_to_every_objective() {
        let metrics = RequestMetrics::default();
        let (route, pool) = (Arc::<str>::from("api"), pool());
        let action = RouteAction::to_pool("web");
        let mut spec = RouteSpec::new("api", HostMatch::Any, PathMatch::default(), action);
        spec.slo = Some(slo());
        let route_metrics = metrics.register_route_pool(&route, &pool.name);
        let mut budgets = budgets();
        for (status, ms) in [(200, 1), (200, 500), (404, 1), (503, 500), (501, 1)] {
            route_metrics.record_response(status, Duration::from_millis(ms), &spec, &pool);
        }
        route_metrics.record_truncated();
        budgets.sample(&metrics, Instant::now(), NOW_S);
        budgets.sample(&metrics, Instant::now(), NOW_S);
        for scope in ["route", "pool"] {
            assert_eq!(counts(&budgets, "availability", scope), SloCounts { total: 5, bad: 2 });
            assert_eq!(counts(&budgets, "latency", scope), SloCounts { total: 3, bad: 1 });
        }
        assert!(
            (budgets.allowed_failures("web", NOW_S).expect("an objective") - 0.05).abs() < 1e-9
        );
        assert_eq!(budgets.allowed_failures("db", NOW_S), None);
        let place = Locality::parse("r/a").expect("a place");
        let zones = |good, bad| vec![("web".into(), place.clone(), AttemptCounts { good, bad })];
        budgets.sample_zones(zones(9, 1), NOW_S);
        budgets.sample_zones(zones(19, 1), NOW_S);
        for scope in ["zone", "region"] {
            assert_eq!(counts(&budgets, "availability", scope), SloCounts { total: 20, bad: 1 });
        }
    }

    #[test]
    fn history_after_restart_is_restored() {
        let metrics = RequestMetrics::default();
        let route_metrics = metrics.register_route_pool(&"api".into(), &"web".into());
        route_metrics.record_truncated();
        let spec = RouteSpec::new(
            "api",
            HostMatch::Any,
            PathMatch::default(),
            RouteAction::to_pool("web"),
        );
        route_metrics.record_response(200, Duration::ZERO, &spec, &pool());
        let mut first = budgets();
        first.sample(&metrics, Instant::now(), NOW_S);
        let stored = first.pending_writes(NOW_S).expect("changed");
        assert_eq!(first.pending_writes(NOW_S), None);
        let mut second = budgets();
        second.sample(&metrics, Instant::now(), NOW_S);
        second.load_series(&stored);
        assert_eq!(counts(&second, "availability", "route"), SloCounts { total: 2, bad: 2 });
        second.configure(&[], &[]);
        second.mark_dirty();
        assert!(
            !second.pending_writes(NOW_S).expect("pending writes").is_empty(),
            "the objective may return"
        );
        second.mark_dirty();
        assert!(second.pending_writes(NOW_S + 40 * 24 * 3_600).expect("pending writes").is_empty());
    }

    #[test]
    fn alert_with_one_window_over_does_not_fire() {
        let mut budgets = budgets();
        let key = budgets.objectives[0].series_key();
        let series = budgets.series.entry(key).or_default();
        series.add(SloCounts { total: 100, bad: 50 }, NOW_S - 1_800);
        let is_on = |budgets: &ErrorBudgets| {
            budgets.objective_statuses(NOW_S)[0].is_alerting(&BURN_RATE_ALERTS[0])
        };
        assert!(!is_on(&budgets), "it is over");
        let key = budgets.objectives[0].series_key();
        budgets.series.entry(key).or_default().add(SloCounts { total: 10, bad: 5 }, NOW_S);
        assert!(is_on(&budgets));
    }
}

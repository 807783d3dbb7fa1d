//! Error budgets: what workers have counted, by objective, over thirty days.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::meter::{Meters, WayCounts};
use crate::logic::id::Place;
use crate::logic::live::Tries;
use crate::logic::slo::{ALERTS, Alert, Counts, LatencyObjective, Series, Slo, Span};
use crate::logic::topology::PoolSpec;

/// Histories that are kept, at most: about 25 KiB each.
const SERIES: usize = 1_000;

/// How much a pool is asked for is an average over about this long.
const RATE_OVER: Duration = Duration::from_secs(10);

/// What a promise is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Availability,
    Latency(Duration),
}

/// One promise.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Objective {
    pub(super) kind: Kind,
    pub(super) scope: &'static str,
    /// The route, the pool, the zone or the region.
    pub(super) name: String,
    /// The pool of a zone or a region.
    pub(super) pool: Option<String>,
    /// In 0..1.
    pub(super) share: f64,
}

impl Objective {
    fn new(kind: Kind, scope: &'static str, name: &str, share: f64) -> Self {
        Self { kind, scope, name: name.to_owned(), pool: None, share }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Availability => "availability",
            Kind::Latency(_) => "latency",
        }
    }

    /// What its history is kept under.
    fn key(&self) -> String {
        let pool = self.pool.as_deref().unwrap_or_default();
        format!("{} {} {pool} {}", self.kind(), self.scope, self.name)
    }

    fn labels(&self) -> String {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let (name, pool) = (escaped(&self.name), self.pool.as_deref().unwrap_or_default());
        let (kind, scope) = (self.kind(), self.scope);
        format!("objective=\"{kind}\",scope=\"{scope}\",name=\"{name}\",pool=\"{pool}\"")
    }
}

/// How one promise stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Standing {
    pub(super) objective: Objective,
    /// Over the [`Span::BUDGETS`].
    pub(super) budgets: [Counts; 3],
    /// Over the [`Span::BURNS`].
    pub(super) burns: [Counts; 4],
}

impl Standing {
    pub(super) fn burn_rate(&self, span: Span) -> f64 {
        let index = Span::BURNS.iter().position(|one| *one == span);
        index.map_or(0.0, |index| self.burns[index].burn_rate(self.objective.share))
    }

    pub(super) fn is_alerting(&self, alert: &Alert) -> bool {
        let least = alert.burn_rate;
        self.burn_rate(alert.long) >= least && self.burn_rate(alert.short) >= least
    }
}

/// All of it; the thread of the ledger has it.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    objectives: Vec<Objective>,
    series: BTreeMap<String, Series>,
    ways: HashMap<(Arc<str>, Arc<str>), WayCounts>,
    zones: HashMap<(Arc<str>, Place), Counts>,
    answered: HashMap<Arc<str>, u64>,
    rates: HashMap<Arc<str>, f64>,
    looked: Option<Instant>,
    is_dirty: bool,
}

impl Budgets {
    /// Obeys another configuration.
    pub(super) fn configure(&mut self, routes: &[(Arc<str>, Slo)], pools: &[Arc<PoolSpec>]) {
        self.objectives.clear();
        for (name, slo) in routes {
            self.promise("route", name, slo);
        }
        for (pool, slo) in pools.iter().filter_map(|pool| Some((pool, pool.slo?))) {
            self.promise("pool", &pool.name, &slo);
            let Some(share) = slo.availability else { continue };
            let mut regions: Vec<String> = Vec::new();
            let mut within = |scope, name: &str| {
                let objective = Objective::new(Kind::Availability, scope, name, share);
                let pool = Some(pool.name.to_string());
                self.objectives.push(Objective { pool, ..objective });
            };
            for zone in &pool.zones {
                within("zone", &zone.place.to_string());
                let region = zone.place.region.to_string();
                if !regions.contains(&region) {
                    regions.push(region);
                }
            }
            regions.iter().for_each(|region| within("region", region));
        }
        self.objectives.truncate(SERIES);
    }

    fn promise(&mut self, scope: &'static str, name: &str, slo: &Slo) {
        if let Some(share) = slo.availability {
            self.objectives.push(Objective::new(Kind::Availability, scope, name, share));
        }
        if let Some(LatencyObjective { share, under }) = slo.latency {
            self.objectives.push(Objective::new(Kind::Latency(under), scope, name, share));
        }
    }

    /// Looks at what workers have counted.
    pub(super) fn look(&mut self, meters: &Meters, now: Instant, now_s: u64) {
        self.rate(meters, now);
        let kept: HashSet<String> = self.objectives.iter().map(Objective::key).collect();
        let mut add = |kind: &str, scope: &str, name: &str, counts: Counts| {
            let key = format!("{kind} {scope}  {name}");
            if counts.all > 0 && kept.contains(&key) {
                self.series.entry(key).or_default().add(counts, now_s);
                self.is_dirty = true;
            }
        };
        for (way, counts) in meters.ways() {
            let before = self.ways.insert(way.clone(), counts).unwrap_or_default();
            let now = |all, bad| Counts { all, bad };
            let since = |read: fn(&WayCounts) -> u64| read(&counts).saturating_sub(read(&before));
            let (all, failed) = (since(|c| c.all), since(|c| c.failed));
            let well = all.saturating_sub(failed);
            let (route, pool) = &way;
            add("availability", "route", route, now(all, failed.min(all)));
            add("availability", "pool", pool, now(all, failed.min(all)));
            add("latency", "route", route, now(well, since(|c| c.slow_for_route).min(well)));
            add("latency", "pool", pool, now(well, since(|c| c.slow_for_pool).min(well)));
        }
    }

    /// How much each pool is asked for.
    fn rate(&mut self, meters: &Meters, now: Instant) {
        let passed = self.looked.map(|looked| now.saturating_duration_since(looked));
        self.looked = Some(now);
        for (pool, answered) in meters.answered_by_pool() {
            let before = self.answered.insert(Arc::clone(&pool), answered).unwrap_or(0);
            let Some(passed) = passed.filter(|passed| !passed.is_zero()) else { continue };
            let rate = answered.saturating_sub(before) as f64 / passed.as_secs_f64();
            let weight = (passed.as_secs_f64() / RATE_OVER.as_secs_f64()).min(1.0);
            let average = self.rates.entry(pool).or_insert(rate);
            *average += (rate - *average) * weight;
        }
    }

    /// Requests a second of late.
    pub(super) fn rate_rps(&self, pool: &str) -> f64 {
        self.rates.get(pool).copied().unwrap_or(0.0)
    }

    /// Looks at how tries ended, by zone.
    pub(super) fn look_at_zones(&mut self, zones: Vec<(Arc<str>, Place, Tries)>, now_s: u64) {
        for (pool, place, tries) in zones {
            let counts = Counts { all: tries.good + tries.bad, bad: tries.bad };
            let key = (Arc::clone(&pool), place.clone());
            let since = counts.since(self.zones.insert(key, counts).unwrap_or_default());
            for (scope, name) in [("zone", place.to_string()), ("region", place.region.to_string())]
            {
                let key = format!("availability {scope} {pool} {name}");
                if since.all > 0 && self.objectives.iter().any(|one| one.key() == key) {
                    self.series.entry(key).or_default().add(since, now_s);
                    self.is_dirty = true;
                }
            }
        }
    }

    /// Takes over what earlier processes have counted.
    pub(super) fn adopt(&mut self, kept: &[(String, Vec<u8>)]) {
        for (key, bytes) in kept.iter().take(SERIES) {
            match Series::from_bytes(bytes) {
                Some(series) => self.series.entry(key.clone()).or_default().merge(&series),
                None => tracing::warn!(key, "an error budget in the ledger cannot be understood"),
            }
        }
    }

    /// All histories, if they have changed since the last call. What is promised no longer stays as
    /// long as there is something in it.
    pub(super) fn pending(&mut self, now_s: u64) -> Option<Vec<(String, Vec<u8>)>> {
        if !std::mem::take(&mut self.is_dirty) {
            return None;
        }
        let kept: HashSet<String> = self.objectives.iter().map(Objective::key).collect();
        self.series.retain(|key, series| {
            kept.contains(key) || series.over(Span::Days30, now_s) != Counts::default()
        });
        Some(self.series.iter().map(|(key, series)| (key.clone(), series.to_bytes())).collect())
    }

    /// What was to be written is not.
    pub(super) fn soil(&mut self) {
        self.is_dirty = true;
    }

    /// Failures that the thirty days' budget of a pool allows; `None` if nothing is promised of it.
    pub(super) fn allowed(&self, pool: &str, now_s: u64) -> Option<f64> {
        let is_it = |one: &&Objective| {
            one.scope == "pool" && one.kind == Kind::Availability && one.name == pool
        };
        let objective = self.objectives.iter().find(is_it)?;
        let all = self.series.get(&objective.key())?.over(Span::Days30, now_s).all;
        Some(all as f64 * (1.0 - objective.share))
    }

    /// How every promise stands.
    pub(super) fn standings(&self, now_s: u64) -> Vec<Standing> {
        let standing = |objective: &Objective| {
            let series = self.series.get(&objective.key());
            let over = |span| series.map(|series| series.over(span, now_s)).unwrap_or_default();
            Standing {
                objective: objective.clone(),
                budgets: Span::BUDGETS.map(over),
                burns: Span::BURNS.map(over),
            }
        };
        self.objectives.iter().map(standing).collect()
    }
}

/// The standings in the text format of Prometheus.
pub(super) fn metrics(standings: &[Standing]) -> String {
    let mut page = String::new();
    if standings.is_empty() {
        return page;
    }
    let mut gauge = |name: &str, help: &str, lines: &dyn Fn(&Standing) -> Vec<(String, f64)>| {
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge");
        for standing in standings {
            let labels = standing.objective.labels();
            for (more, value) in lines(standing) {
                let _ = writeln!(page, "{name}{{{labels}{more}}} {value}");
            }
        }
    };
    gauge("gapless_slo_objective_ratio", "What is promised.", &|standing| {
        vec![(String::new(), standing.objective.share)]
    });
    let window = |span: Span| format!(",window=\"{}\"", span.as_str());
    let by_budget = |standing: &Standing, value: fn(Counts, f64) -> f64| {
        let share = standing.objective.share;
        let line = |(span, counts): (Span, Counts)| (window(span), value(counts, share));
        Span::BUDGETS.into_iter().zip(standing.budgets).map(line).collect()
    };
    gauge("gapless_slo_good_ratio", "What was kept of it.", &|standing| {
        by_budget(standing, |counts, _| counts.good_share())
    });
    gauge("gapless_slo_requests", "Requests that it was measured by.", &|standing| {
        by_budget(standing, |counts, _| counts.all as f64)
    });
    let help = "What is left of the error budget: 1 is all of it, below 0 it is overdrawn.";
    gauge("gapless_slo_budget_left_ratio", help, &|standing| {
        by_budget(standing, Counts::budget_left)
    });
    let help = "How many times faster than just in time the error budget is used up.";
    gauge("gapless_slo_burn_rate", help, &|standing| {
        Span::BURNS.into_iter().map(|span| (window(span), standing.burn_rate(span))).collect()
    });
    let help = "Whether the budget burns so fast that somebody should know.";
    gauge("gapless_slo_alert", help, &|standing| {
        let line = |alert: &Alert| {
            let is_on = if standing.is_alerting(alert) { 1.0 } else { 0.0 };
            (format!(",alert=\"{}\"", alert.name), is_on)
        };
        ALERTS.iter().map(line).collect()
    });
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::route::{Action, HostMatch, PathMatch, RouteSpec};
    use crate::logic::topology::{EndpointSpec, ZoneSpec};

    const NOW_S: u64 = 1_700_000_000;

    fn slo() -> Slo {
        let latency = LatencyObjective { share: 0.9, under: Duration::from_millis(100) };
        Slo { availability: Some(0.99), latency: Some(latency) }
    }

    fn pool() -> Arc<PoolSpec> {
        let place = Place::parse("r/a").expect("a place");
        let endpoint = EndpointSpec { address: ([10, 0, 0, 1], 80).into(), weight: 1 };
        let mut pool = PoolSpec::new("web", vec![ZoneSpec::new(place, vec![endpoint])]);
        pool.slo = Some(slo());
        Arc::new(pool)
    }

    fn budgets() -> Budgets {
        let mut budgets = Budgets::default();
        budgets.configure(&[("api".into(), slo())], &[pool()]);
        budgets
    }

    fn counts(budgets: &Budgets, kind: &str, scope: &str) -> Counts {
        let standings = budgets.standings(NOW_S);
        let is_it = |one: &&Standing| one.objective.kind() == kind && one.objective.scope == scope;
        standings.iter().find(is_it).expect("promised").budgets[0]
    }

    #[test]
    fn what_workers_count_is_weighed_against_every_promise() {
        let meters = Meters::default();
        let (route, pool) = (Arc::<str>::from("api"), pool());
        let action = Action::pool("web");
        let mut spec = RouteSpec::new("api", HostMatch::Any, PathMatch::default(), action);
        spec.slo = Some(slo());
        let meter = meters.way(&route, &pool.name);
        let mut budgets = budgets();
        for (status, ms) in [(200, 1), (200, 500), (404, 1), (503, 500), (501, 1)] {
            meter.answered(status, Duration::from_millis(ms), &spec, &pool);
        }
        meter.was_cut();
        budgets.look(&meters, Instant::now(), NOW_S);
        budgets.look(&meters, Instant::now(), NOW_S);
        for scope in ["route", "pool"] {
            assert_eq!(counts(&budgets, "availability", scope), Counts { all: 5, bad: 2 });
            assert_eq!(counts(&budgets, "latency", scope), Counts { all: 3, bad: 1 });
        }
        assert!((budgets.allowed("web", NOW_S).expect("promised") - 0.05).abs() < 1e-9);
        assert_eq!(budgets.allowed("db", NOW_S), None);
        let place = Place::parse("r/a").expect("a place");
        let zones = |good, bad| vec![("web".into(), place.clone(), Tries { good, bad })];
        budgets.look_at_zones(zones(9, 1), NOW_S);
        budgets.look_at_zones(zones(19, 1), NOW_S);
        for scope in ["zone", "region"] {
            assert_eq!(counts(&budgets, "availability", scope), Counts { all: 20, bad: 1 });
        }
    }

    #[test]
    fn a_history_outlives_its_process() {
        let meters = Meters::default();
        let meter = meters.way(&"api".into(), &"web".into());
        meter.was_cut();
        let spec = RouteSpec::new("api", HostMatch::Any, PathMatch::default(), Action::pool("web"));
        meter.answered(200, Duration::ZERO, &spec, &pool());
        let mut first = budgets();
        first.look(&meters, Instant::now(), NOW_S);
        let kept = first.pending(NOW_S).expect("changed");
        assert_eq!(first.pending(NOW_S), None);
        let mut second = budgets();
        second.look(&meters, Instant::now(), NOW_S);
        second.adopt(&kept);
        assert_eq!(counts(&second, "availability", "route"), Counts { all: 2, bad: 2 });
        second.configure(&[], &[]);
        second.soil();
        assert!(!second.pending(NOW_S).expect("soiled").is_empty(), "it may be promised again");
        second.soil();
        assert!(second.pending(NOW_S + 40 * 24 * 3_600).expect("soiled").is_empty());
    }

    #[test]
    fn an_alert_needs_both_of_its_windows() {
        let mut budgets = budgets();
        let key = budgets.objectives[0].key();
        let series = budgets.series.entry(key).or_default();
        series.add(Counts { all: 100, bad: 50 }, NOW_S - 1_800);
        let is_on = |budgets: &Budgets| budgets.standings(NOW_S)[0].is_alerting(&ALERTS[0]);
        assert!(!is_on(&budgets), "it is over");
        let key = budgets.objectives[0].key();
        budgets.series.entry(key).or_default().add(Counts { all: 10, bad: 5 }, NOW_S);
        assert!(is_on(&budgets));
        let page = metrics(&budgets.standings(NOW_S));
        let sample = "gapless_slo_alert{objective=\"availability\",scope=\"route\",name=\"api\",\
                      pool=\"\",alert=\"fast\"} 1";
        assert!(page.contains(sample), "{page}");
    }
}

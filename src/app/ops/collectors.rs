//! Metrics that are read off the director, the drills and what all threads share. A series exists
//! from the start, and disappears with the thing that it describes.

use std::sync::atomic::Ordering::Relaxed;

use crate::app::control::orders::order_store::OrderStore;
use crate::app::dataplane::shared::InstanceShared;
use crate::logic::director::{Director, Eligibility, PoolStatus, ZoneVerdict};
use crate::logic::drill::DrillOutcome;
use crate::logic::incident::IncidentSubject;
use crate::logic::orders::{OrderAction, OrderSource};

use super::api::WallClock;
use super::drill::{DrillRegistry, LastDrill};
use super::metrics::{Collect, FamilyWriter, GaugeFamily, families};

/// Connections, descriptors, memory, and losses of bounded queues.
impl Collect for InstanceShared {
    fn collect(&self, out: &mut FamilyWriter) {
        let Self { descriptors, pressure, .. } = self;
        out.gauge(families::CLIENT_CONNECTIONS, [], descriptors.client_count() as f64);
        out.gauge(families::DESCRIPTORS, [], descriptors.open_count() as f64);
        out.gauge(families::DESCRIPTORS_LIMIT, [], descriptors.limit() as f64);
        out.gauge(families::MEMORY, [], pressure.used_bytes() as f64);
        if let Some(limit) = pressure.limit_bytes() {
            out.gauge(families::MEMORY_LIMIT, [], limit as f64);
        }
        out.gauge(families::MEMORY_PRESSURE, [], f64::from(pressure.level() as u8));
        out.counter(families::OVERLOAD_REFUSALS, [], pressure.refusals());
        out.counter(families::REPORTS_DROPPED, [], self.reports_dropped.load(Relaxed));
        out.counter(families::ACCESS_LOG_LINES_DROPPED, [], self.access_log.dropped());
    }
}

/// Orders of operators in force, and the endpoints that they drain.
pub struct OrderMetrics<'a> {
    pub director: &'a Director,
    pub order_store: &'a OrderStore,
}

impl Collect for OrderMetrics<'_> {
    fn collect(&self, out: &mut FamilyWriter) {
        let orders = self.director.orders();
        for action in OrderAction::NAMES {
            for source in OrderSource::ALL {
                let count = orders.count(action, source) as f64;
                out.gauge(families::ORDERS, [&action, &source.as_str()], count);
            }
        }
        for status in self.director.endpoints() {
            let IncidentSubject { pool, locality, address, .. } = &*status.subject;
            let is_drained = status.eligibility == Eligibility::Drained;
            out.flag(families::ENDPOINT_DRAINED, [pool, locality, address], is_drained);
        }
        if let Some(is_durable) = self.order_store.is_durable() {
            out.flag(families::ORDERS_DURABLE, [], is_durable);
            out.counter(families::ORDERS_WRITE_FAILURES, [], self.order_store.failures());
        }
    }
}

/// The running drill, and the results of the last one of each zone.
pub struct DrillMetrics<'a> {
    pub drills: &'a DrillRegistry,
    pub clock: &'a WallClock,
}

impl Collect for DrillMetrics<'_> {
    fn collect(&self, out: &mut FamilyWriter) {
        out.flag(families::DRILL_ACTIVE, [], self.drills.is_active());
        for outcome in DrillOutcome::ALL {
            out.counter(families::DRILLS, [&outcome.as_str()], self.drills.total(outcome));
        }
        for (zone, last) in self.drills.last_by_zone() {
            self.collect_last(zone, last, out);
        }
    }
}

impl DrillMetrics<'_> {
    fn collect_last(&self, zone: &str, last: &LastDrill, out: &mut FamilyWriter) {
        for outcome in DrillOutcome::ALL {
            let labels: [&dyn std::fmt::Display; 2] = [&zone, &outcome.as_str()];
            out.flag(families::DRILL_LAST_OUTCOME, labels, last.outcome == outcome);
        }
        let unix_seconds = |at| self.clock.since_unix_epoch(at).as_secs_f64();
        let age = out.now().saturating_duration_since(last.at);
        let samples = [
            (families::DRILL_LAST_END, Some(unix_seconds(last.at))),
            (families::DRILL_LAST_SUCCESS, last.last_success.map(unix_seconds)),
            (families::DRILL_LAST_AGE, Some(age.as_secs_f64())),
            (families::DRILL_LAST_DETECTION, last.detection_s),
            (families::DRILL_LAST_GAP, last.gap_s),
        ];
        for (family, value) in samples {
            if let Some(value) = value {
                out.gauge(family, [&zone], value);
            }
        }
    }
}

/// The state of pools and zones.
impl Collect for Director {
    fn collect(&self, out: &mut FamilyWriter) {
        out.flag(families::BLIND, [], self.is_probing_impaired());
        out.gauge(families::PROBE_STRETCH, [], self.stretch());
        for pool in self.pools() {
            collect_pool(&pool, out);
        }
        for zone in self.zones(out.now()) {
            let is_up = zone.verdict == ZoneVerdict::Up;
            out.flag(families::ZONE_UP, [&zone.pool, &zone.place], is_up);
        }
    }
}

fn collect_pool(pool: &PoolStatus, out: &mut FamilyWriter) {
    let mut gauge = |family: GaugeFamily<1>, value: f64| out.gauge(family, [&pool.name], value);
    gauge(families::POOL_PANIC, f64::from(u8::from(pool.is_in_panic)));
    gauge(families::POOL_DIVERGENCE, f64::from(u8::from(pool.is_diverging)));
    gauge(families::POOL_DOWN, pool.down as f64);
    gauge(families::POOL_DRAINED, pool.drained as f64);
    gauge(families::POOL_EVICT_LIMIT, f64::from(pool.evict.allowed));
    if let Some(period) = pool.achieved_period {
        gauge(families::PROBE_PERIOD, period.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::super::metrics::render;
    use super::*;

    use crate::logic::director::Input;
    use crate::logic::model::id::Locality;
    use crate::logic::model::topology::{EndpointSpec, EvictionSpec, PoolSpec, Topology, ZoneSpec};

    #[test]
    fn gauges_without_traffic_are_all_present() {
        let now = Instant::now();
        let mut director = Director::new(now, 1);
        let one = |port| EndpointSpec { address: ([127, 0, 0, 1], port).into(), weight: 1 };
        let place = Locality::parse("r/a").expect("a place");
        let zone = ZoneSpec::new(place, vec![one(1), one(2)]);
        let mut pool = PoolSpec::new("web", vec![zone]);
        pool.eviction = EvictionSpec { max_down_percent: 50, ..EvictionSpec::default() };
        let topology = Topology { local: None, pools: vec![Arc::new(pool)], probes_per_second: 1 };
        director.handle(Input::Configure { topology, routes: Arc::default() }, now);
        let order_store = OrderStore::default();
        let orders = OrderMetrics { director: &director, order_store: &order_store };
        let page = render(now, &[&director, &orders]);
        for sample in [
            "gapless_blind 0",
            "gapless_probe_stretch 2",
            "gapless_pool_panic{pool=\"web\"} 0",
            "gapless_pool_divergence{pool=\"web\"} 0",
            "gapless_pool_down{pool=\"web\"} 0",
            "gapless_pool_drained{pool=\"web\"} 0",
            "gapless_pool_evict_limit{pool=\"web\"} 1",
            "gapless_zone_up{pool=\"web\",zone=\"r/a\"} 1",
            "gapless_orders{act=\"drain\",source=\"api\"} 0",
            "gapless_endpoint_drained{pool=\"web\",zone=\"r/a\",endpoint=\"127.0.0.1:2\"} 0",
        ] {
            assert!(page.lines().any(|line| line == sample), "{sample} not in\n{page}");
        }
        assert!(!page.contains("gapless_probe_period_seconds"), "nothing was probed twice");
    }
}

//! Gauges that are read off the director, and off what all threads share, when somebody asks for
//! `/metrics`: each exists from the start, and goes with what it is about.

use std::fmt::{Display, Write};
use std::time::Instant;

use crate::logic::director::{Director, Eligibility, PoolStatus, ZoneStatus, ZoneVerdict};
use crate::logic::drill::DrillOutcome;
use crate::logic::orders::operator_orders::{OrderAction, OrderSource};

use super::api::WallClock;
use super::drill::{DrillRegistry, LastDrill};
use super::ledger::LedgerHandle;
use crate::app::control::orders::order_store::OrderStore;
use crate::app::dataplane::shared::InstanceShared;

/// A page in the text format of Prometheus.
#[derive(Debug, Default)]
struct GaugePage {
    text: String,
}

impl GaugePage {
    fn push_metric(&mut self, (name, kind): (&str, &str), help: &str, value: impl Display) {
        let head = format!("# HELP {name} {help}\n# TYPE {name} {kind}");
        let _ = writeln!(self.text, "{head}\n{name} {value}");
    }

    /// One gauge with its samples: labels in braces (or nothing), and the value.
    fn push_gauge(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, f64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(self.text, "{name}{labels} {value}");
        }
    }
}

/// What there is of what may run out.
pub fn render_resources(shared: &InstanceShared) -> String {
    let InstanceShared { descriptors, pressure, .. } = shared;
    let mut page = GaugePage::default();
    let mut gauge = |name, help, value| page.push_metric((name, "gauge"), help, value);
    let help = "Connections of clients.";
    gauge("gapless_client_connections", help, descriptors.client_count() as u64);
    let help = "Descriptors of connections of clients and to endpoints.";
    gauge("gapless_descriptors", help, descriptors.open_count() as u64);
    let help = "How many there may be: the rest is for probes and the operator.";
    gauge("gapless_descriptors_limit", help, descriptors.limit() as u64);
    gauge("gapless_memory_bytes", "Resident memory.", pressure.used_bytes());
    if let Some(bound) = pressure.limit_bytes() {
        gauge("gapless_memory_limit_bytes", "The bound of it.", bound);
    }
    let help =
        "What is done about it: 1 closes idle connections, 2 refuses requests, 3 accepts none.";
    gauge("gapless_memory_pressure", help, pressure.level() as u64);
    let help = "Requests refused because memory is short.";
    page.push_metric(("gapless_overload_refusals_total", "counter"), help, pressure.refusals());
    page.text
}

/// How the ledger fares.
pub fn render_ledger(ledger: &LedgerHandle) -> String {
    let mut page = GaugePage::default();
    let help = "Incidents that are kept.";
    page.push_metric(("gapless_ledger_incidents", "gauge"), help, ledger.stored());
    let help = "Whether the ledger is on the disk.";
    page.push_metric(("gapless_ledger_durable", "gauge"), help, bool_value(ledger.is_durable()));
    let help = "Notes for the ledger that it had no room for.";
    page.push_metric(("gapless_ledger_notes_dropped_total", "counter"), help, ledger.dropped());
    let help = "Writes of the ledger that failed.";
    page.push_metric(
        ("gapless_ledger_write_failures_total", "counter"),
        help,
        ledger.failed_writes(),
    );
    page.text
}

/// What operators have ordered, and who is drained by that.
pub fn render_orders(director: &Director, order_store: &OrderStore) -> String {
    let mut page = GaugePage::default();
    let orders = director.orders();
    let counts = OrderAction::NAMES.iter().flat_map(|word| {
        OrderSource::ALL.map(|by| {
            let labels = format!("{{act=\"{word}\",source=\"{}\"}}", by.as_str());
            (labels, orders.count(word, by) as f64)
        })
    });
    page.push_gauge("gapless_orders", "Orders of operators that are in force.", counts);
    let drained = director.endpoints().into_iter().map(|status| {
        let subject = &status.subject;
        let (pool, zone, endpoint) = (&subject.pool, &subject.locality, subject.address);
        let labels = format!("{{pool=\"{pool}\",zone=\"{zone}\",endpoint=\"{endpoint}\"}}");
        (labels, bool_value(status.eligibility == Eligibility::Drained))
    });
    let help = "Whether the endpoint gets nothing because an operator has said so.";
    page.push_gauge("gapless_endpoint_drained", help, drained);
    if let Some(is_durable) = order_store.is_durable() {
        let help = "Whether orders hold over a restart.";
        page.push_metric(("gapless_orders_durable", "gauge"), help, bool_value(is_durable));
        let help = "Writes of orders that failed.";
        page.push_metric(
            ("gapless_orders_write_failures_total", "counter"),
            help,
            order_store.failures(),
        );
    }
    page.text
}

/// Drills: whether one is on, and what became of the last one of each zone.
pub fn render_drills(drills: &DrillRegistry, clock: &WallClock, now: Instant) -> String {
    let mut page = GaugePage::default();
    let active = bool_value(drills.is_active());
    page.push_gauge(
        "gapless_drill_active",
        "Whether a drill is under way.",
        [(String::new(), active)],
    );
    let name = "gapless_drills_total";
    let _ = writeln!(page.text, "# HELP {name} Drills that are over.\n# TYPE {name} counter");
    for outcome in DrillOutcome::ALL {
        let (word, total) = (outcome.as_str(), drills.total(outcome));
        let _ = writeln!(page.text, "{name}{{outcome=\"{word}\"}} {total}");
    }
    let outcomes = drills.last_by_zone().flat_map(|(zone, last)| {
        DrillOutcome::ALL.map(|outcome| {
            let labels = format!("{{zone=\"{zone}\",outcome=\"{}\"}}", outcome.as_str());
            (labels, bool_value(last.outcome == outcome))
        })
    });
    page.push_gauge("gapless_drill_last_outcome", "How the last drill of a zone ended.", outcomes);
    let mut by_zone = |name: &str, help: &str, value: &dyn Fn(&LastDrill) -> Option<f64>| {
        let sample =
            |(zone, last): (&str, &LastDrill)| Some((format!("{{zone=\"{zone}\"}}"), value(last)?));
        page.push_gauge(name, help, drills.last_by_zone().filter_map(sample));
    };
    let help = "When the last drill of a zone ended.";
    by_zone("gapless_drill_last_timestamp_seconds", help, &|last| {
        Some(clock.since_unix_epoch(last.at).as_secs_f64())
    });
    let help = "When a drill of the zone last succeeded.";
    by_zone("gapless_drill_last_success_timestamp_seconds", help, &|last| {
        last.last_success.map(|at| clock.since_unix_epoch(at).as_secs_f64())
    });
    let help = "How long ago the last drill of a zone ended.";
    by_zone("gapless_drill_last_age_seconds", help, &|last| {
        Some(now.saturating_duration_since(last.at).as_secs_f64())
    });
    let help = "The detection window that the last drill of a zone measured.";
    by_zone("gapless_drill_last_detection_seconds", help, &|last| last.detection_s);
    let help = "The failover gap that the last drill of a zone measured.";
    by_zone("gapless_drill_last_gap_seconds", help, &|last| last.gap_s);
    page.text
}

/// The state of the director, as of `now`.
pub fn render_director(director: &Director, now: Instant) -> String {
    let mut page = GaugePage::default();
    let plain = |value| [(String::new(), value)];
    let blind = bool_value(director.is_probing_impaired());
    page.push_gauge("gapless_blind", "Whether probes end without evidence.", plain(blind));
    page.push_gauge(
        "gapless_probe_stretch",
        "How many times longer than configured periods of probes are, because of their budget.",
        plain(director.stretch()),
    );
    push_pools(&director.pools(), &mut page);
    let zone = |zone: &ZoneStatus| {
        // Names are letters, digits and `-_.`: nothing is to be escaped.
        let labels = format!("{{pool=\"{}\",zone=\"{}\"}}", zone.pool, zone.place);
        (labels, bool_value(zone.verdict == ZoneVerdict::Up))
    };
    let zones = director.zones(now);
    let help = "Whether the zone is up as a whole.";
    page.push_gauge("gapless_zone_up", help, zones.iter().map(zone));
    page.text
}

fn push_pools(pools: &[PoolStatus], page: &mut GaugePage) {
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&PoolStatus) -> Option<f64>| {
        let sample =
            |pool: &PoolStatus| Some((format!("{{pool=\"{}\"}}", pool.name), value(pool)?));
        page.push_gauge(name, help, pools.iter().filter_map(sample));
    };
    let help = "Whether nothing in the pool is healthy, so that traffic goes to all of it.";
    gauge("gapless_pool_panic", help, &|pool| Some(bool_value(pool.is_in_panic)));
    let help = "Whether probes fail in much of the pool while its traffic succeeds.";
    gauge("gapless_pool_divergence", help, &|pool| Some(bool_value(pool.is_diverging)));
    let help = "Endpoints whose verdict is down.";
    gauge("gapless_pool_down", help, &|pool| Some(pool.down as f64));
    let help = "Endpoints that get nothing because an operator has said so.";
    gauge("gapless_pool_drained", help, &|pool| Some(pool.drained as f64));
    let help = "Endpoints that may be down at once: verdicts beyond are withheld.";
    gauge("gapless_pool_evict_limit", help, &|pool| Some(f64::from(pool.evict.allowed)));
    let help = "The period of probes of endpoints that are up, as it is.";
    gauge("gapless_probe_period_seconds", help, &|pool| {
        pool.achieved_period.map(|period| period.as_secs_f64())
    });
}

fn bool_value(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

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
        let page =
            render_director(&director, now) + &render_orders(&director, &OrderStore::default());
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

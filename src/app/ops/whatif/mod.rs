//! `/api/v1/whatif`: the traffic after the loss of endpoints, zones or regions, as JSON and as
//! plain text.

pub mod query;

use std::fmt::Write;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::logic::director::Director;
use crate::logic::model::selector::TopologySelector;
use crate::sim::whatif::{
    PoolOutlook, PoolTraffic, WhatIfInput, ZoneTraffic, has_target_in_topology, whatif,
};

use super::explain::query::ExplainFormat;
use query::WhatIfQuery;

#[derive(Debug, Serialize)]
struct WhatIfPoolJson<'o> {
    pool: &'o str,
    holds: bool,
    rate_rps: Option<f64>,
    before: WhatIfStateJson,
    after: WhatIfStateJson,
    overloaded: Vec<&'o str>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct WhatIfStateJson {
    panic: bool,
    zones: Vec<WhatIfZoneJson>,
}

#[derive(Debug, Serialize)]
struct WhatIfZoneJson {
    zone: String,
    share: f64,
    rate_rps: Option<f64>,
    capacity_rps: Option<f64>,
    serving: u32,
    endpoints: u32,
}

/// Answers from the current health and load on a thread of its own, since the simulation would
/// delay the control thread. The result is whether everything holds, and the page.
///
/// # Errors
/// If no pool has the lost target.
pub fn answer(
    director: &Director,
    query: WhatIfQuery,
) -> Result<oneshot::Receiver<(bool, String)>, String> {
    let topology = director.topology().clone();
    if let Some(unknown) = query.lose.iter().find(|what| !has_target_in_topology(what, &topology)) {
        return Err(format!("no pool has {unknown}"));
    }
    let (health, zone_loads, latency_orders) =
        (director.export_health(), director.zone_loads(), director.latency_order());
    let orders = director.orders().iter().cloned().collect();
    let (sender, receiver) = oneshot::channel();
    let simulate = move || {
        let input = WhatIfInput {
            topology: &topology,
            health,
            orders,
            zone_loads,
            latency_orders,
            lost_targets: &query.lose,
        };
        let outlooks = whatif(&input, Instant::now());
        let _ = sender
            .send((can_serve_all(&outlooks), render_answer(&query.lose, &outlooks, query.format)));
    };
    // Without a thread the sender is dropped, and the receiver gets an error.
    let _ = std::thread::Builder::new().name("whatif".to_owned()).spawn(simulate);
    Ok(receiver)
}

/// Whether every pool still serves within its capacity.
pub fn can_serve_all(outlooks: &[PoolOutlook]) -> bool {
    outlooks.iter().all(PoolOutlook::can_carry_load)
}

/// The page in the requested format.
pub fn render_answer(
    lost: &[TopologySelector],
    outlooks: &[PoolOutlook],
    format: ExplainFormat,
) -> String {
    match format {
        ExplainFormat::Json => format!("{:#}\n", as_json(lost, outlooks)),
        ExplainFormat::Text => as_text(outlooks),
    }
}

fn as_json(lost: &[TopologySelector], outlooks: &[PoolOutlook]) -> serde_json::Value {
    let pool = |outlook: &PoolOutlook| {
        let state = |state: &PoolTraffic| WhatIfStateJson {
            panic: state.is_panic,
            zones: state.zones.iter().map(|zone| zone_json(zone, outlook.rate_rps)).collect(),
        };
        serde_json::json!(WhatIfPoolJson {
            pool: &outlook.pool.name,
            holds: outlook.can_carry_load(),
            rate_rps: outlook.rate_rps,
            before: state(&outlook.before),
            after: state(&outlook.after),
            overloaded: outlook.overloaded().collect(),
            problems: outlook.problems.iter().map(ToString::to_string).collect(),
        })
    };
    serde_json::json!({
        "lost": lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "holds": can_serve_all(outlooks),
        "pools": outlooks.iter().map(pool).collect::<Vec<_>>(),
    })
}

fn zone_json(zone: &ZoneTraffic, rate_rps: Option<f64>) -> WhatIfZoneJson {
    WhatIfZoneJson {
        zone: zone.place.to_string(),
        share: zone.share,
        rate_rps: rate_rps.map(|rate| rate * zone.share),
        capacity_rps: zone.capacity_rps,
        serving: zone.serving_count,
        endpoints: zone.endpoint_count,
    }
}

fn as_text(outlooks: &[PoolOutlook]) -> String {
    let mut page = String::new();
    for outlook in outlooks {
        let rate =
            outlook.rate_rps.map_or_else(String::new, |rate| format!(", {rate:.0} requests/s"));
        let policy = outlook.pool.steer.policy.as_str();
        let _ = writeln!(page, "pool {} ({policy}{rate})", outlook.pool.name);
        let zones = outlook.before.zones.iter().zip(&outlook.after.zones);
        let width = zones.clone().map(|(zone, _)| zone.place.to_string().len()).max().unwrap_or(0);
        let _ = writeln!(
            page,
            "  {:width$}  {:>18}  {:>18}  {:>9}  serving",
            "zone", "before", "after", "capacity"
        );
        for (before, after) in zones {
            let gets = |zone: &ZoneTraffic| match outlook.rate_rps {
                None => format!("{:.1} %", zone.share * 100.0),
                Some(rate) => format!("{:.1} % {:>7.0}/s", zone.share * 100.0, zone.share * rate),
            };
            let capacity =
                after.capacity_rps.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}/s"));
            let _ = writeln!(
                page,
                "  {:width$}  {:>18}  {:>18}  {capacity:>9}  {} of {}",
                before.place.to_string(),
                gets(before),
                gets(after),
                after.serving_count,
                after.endpoint_count,
            );
        }
        push_verdict(outlook, &mut page);
    }
    page
}

fn push_verdict(outlook: &PoolOutlook, page: &mut String) {
    for problem in &outlook.problems {
        let _ = writeln!(page, "  {problem}");
    }
    if outlook.after.is_panic {
        page.push_str("  all endpoints get traffic, the lost ones too (panic)\n");
    }
    if outlook.can_carry_load() {
        page.push_str("  holds\n");
    }
}

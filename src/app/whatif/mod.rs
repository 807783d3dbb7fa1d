//! What becomes of traffic when something is lost, told to people and programs.

pub mod query;

use std::fmt::Write;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::logic::director::{Director, What};
use crate::sim::whatif::{Outlook, Overload, Question, State, ZoneState, is_known, whatif};

use super::explain::query::Form;
use query::Query;

#[derive(Debug, Serialize)]
struct PoolJson<'o> {
    pool: &'o str,
    holds: bool,
    rate_rps: Option<f64>,
    before: StateJson,
    after: StateJson,
    overloaded: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StateJson {
    panic: bool,
    zones: Vec<ZoneJson>,
}

#[derive(Debug, Serialize)]
struct ZoneJson {
    zone: String,
    share: f64,
    rate_rps: Option<f64>,
    capacity_rps: Option<f64>,
    serving: u32,
    endpoints: u32,
}

/// Has a thread answer from what is believed and asked for now: whether everything holds, and the
/// page. The director's own thread has other things to do.
///
/// # Errors
/// When there is no such thing to lose.
pub fn answer(
    director: &Director,
    query: Query,
) -> Result<oneshot::Receiver<(bool, String)>, String> {
    let topology = director.topology().clone();
    if let Some(unknown) = query.lose.iter().find(|what| !is_known(what, &topology)) {
        return Err(format!("no pool has {unknown}"));
    }
    let (legacy, flows, nearness) = (director.legacy(), director.flows(), director.nearness());
    let orders = director.orders().iter().cloned().collect();
    let (tell, told_by) = oneshot::channel();
    let make = move || {
        let question =
            Question { topology: &topology, legacy, orders, flows, nearness, lose: &query.lose };
        let outlooks = whatif(&question, Instant::now());
        let _ = tell.send((holds(&outlooks), told(&query.lose, &outlooks, query.form)));
    };
    // Without a thread the channel closes, which is an answer too.
    let _ = std::thread::Builder::new().name("whatif".to_owned()).spawn(make);
    Ok(told_by)
}

/// Whether every pool serves all the same, within what it can take.
#[must_use]
pub fn holds(outlooks: &[Outlook]) -> bool {
    outlooks.iter().all(Outlook::holds)
}

/// The answer, as it was asked for.
#[must_use]
pub fn told(lost: &[What], outlooks: &[Outlook], form: Form) -> String {
    match form {
        Form::Json => format!("{:#}\n", as_json(lost, outlooks)),
        Form::Text => as_text(outlooks),
    }
}

fn as_json(lost: &[What], outlooks: &[Outlook]) -> serde_json::Value {
    let pool = |outlook: &Outlook| {
        let state = |state: &State| StateJson {
            panic: state.panic,
            zones: state.zones.iter().map(|zone| zone_json(zone, outlook.rate_rps)).collect(),
        };
        serde_json::json!(PoolJson {
            pool: &outlook.pool.name,
            holds: outlook.holds(),
            rate_rps: outlook.rate_rps,
            before: state(&outlook.before),
            after: state(&outlook.after),
            overloaded: outlook.overloads().into_iter().map(|over| over.what).collect(),
        })
    };
    serde_json::json!({
        "lost": lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "holds": holds(outlooks),
        "pools": outlooks.iter().map(pool).collect::<Vec<_>>(),
    })
}

fn zone_json(zone: &ZoneState, rate_rps: Option<f64>) -> ZoneJson {
    ZoneJson {
        zone: zone.place.to_string(),
        share: zone.share,
        rate_rps: rate_rps.map(|rate| rate * zone.share),
        capacity_rps: zone.capacity_rps,
        serving: zone.serving,
        endpoints: zone.endpoints,
    }
}

fn as_text(outlooks: &[Outlook]) -> String {
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
            let gets = |zone: &ZoneState| match outlook.rate_rps {
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
                after.serving,
                after.endpoints,
            );
        }
        verdict(outlook, &mut page);
    }
    page
}

fn verdict(outlook: &Outlook, page: &mut String) {
    let mut line = |text: &str| {
        let _ = writeln!(page, "  {text}");
    };
    if !outlook.after.serves() {
        line(
            "nothing is left that can serve: all endpoints get traffic, the lost ones too (panic)",
        );
    } else if outlook.after.panic {
        line(
            "too little is left (evict.panic_percent): all endpoints get traffic, the lost ones too",
        );
    }
    for Overload { what, rate_rps, capacity_rps } in outlook.overloads() {
        line(&format!("{what} would get {rate_rps:.0} requests/s and can take {capacity_rps:.0}"));
    }
    if outlook.holds() {
        line("holds");
    }
}

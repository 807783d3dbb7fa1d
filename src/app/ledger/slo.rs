//! How promises stand, for programs and for people; and how long zones and regions took to come back.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::app::explain::text::span;
use crate::logic::slo::{ALERTS, Counts, Span};

use super::book::Told;
use super::budgets::{Kind, Standing};
use super::entry::Entry;
use super::query::Form;

/// `/api/v1/slo`.
#[derive(Debug, Serialize)]
pub(super) struct SloJson {
    objectives: Vec<ObjectiveJson>,
    restoration: Vec<RestorationJson>,
}

#[derive(Debug, Serialize)]
struct ObjectiveJson {
    objective: &'static str,
    scope: &'static str,
    name: String,
    pool: Option<String>,
    promised: f64,
    under_ms: Option<f64>,
    windows: BTreeMap<&'static str, WindowJson>,
    burn_rates: BTreeMap<&'static str, f64>,
    alerts: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct WindowJson {
    requests: u64,
    bad: u64,
    kept: f64,
    nines: Option<f64>,
    budget_left: f64,
}

/// How long it took from onset to restoration.
#[derive(Debug, Serialize)]
struct RestorationJson {
    scope: &'static str,
    pool: String,
    name: String,
    incidents: usize,
    median_ms: f64,
    p90_ms: f64,
    worst_ms: f64,
}

impl ObjectiveJson {
    fn new(standing: &Standing) -> Self {
        let objective = &standing.objective;
        let window = |(span, counts): (Span, Counts)| {
            let window = WindowJson {
                requests: counts.all,
                bad: counts.bad,
                kept: counts.good_share(),
                nines: counts.nines(),
                budget_left: counts.budget_left(objective.share),
            };
            (span.as_str(), window)
        };
        let burn = |span: Span| (span.as_str(), standing.burn_rate(span));
        let alerts = ALERTS.iter().filter(|alert| standing.is_alerting(alert));
        Self {
            objective: objective.kind(),
            scope: objective.scope,
            name: objective.name.clone(),
            pool: objective.pool.clone(),
            promised: objective.share,
            under_ms: match objective.kind {
                Kind::Availability => None,
                Kind::Latency(under) => Some(under.as_secs_f64() * 1e3),
            },
            windows: Span::BUDGETS.into_iter().zip(standing.budgets).map(window).collect(),
            burn_rates: Span::BURNS.into_iter().map(burn).collect(),
            alerts: alerts.map(|alert| alert.name).collect(),
        }
    }
}

/// Each failure counts once for its zone, and once for its region: what fell together is one.
fn restorations(told: &Told) -> Vec<RestorationJson> {
    let mut all: BTreeMap<(&'static str, String, String), Vec<u64>> = BTreeMap::new();
    let is_in = |outer: &[Entry], id: u64| {
        outer.iter().any(|outer| outer.members.binary_search(&id).is_ok())
    };
    let alone = told.endpoints.iter().filter(|one| !is_in(&told.zones, one.record.id));
    for entry in told.zones.iter().chain(alone) {
        let key = ("zone", entry.record.pool.clone(), entry.record.place.clone());
        all.entry(key).or_default().extend(entry.record.restoration_us());
    }
    for entry in told.outermost() {
        let key = ("region", entry.record.pool.clone(), entry.record.region().to_owned());
        all.entry(key).or_default().extend(entry.record.restoration_us());
    }
    let restoration = |((scope, pool, name), mut took): ((_, String, String), Vec<u64>)| {
        took.sort_unstable();
        let at = |percent: usize| {
            let rank = (took.len() * percent).div_ceil(100).max(1) - 1;
            took.get(rank).map_or(0.0, |&us| us as f64 / 1e3)
        };
        let (median_ms, p90_ms, worst_ms) = (at(50), at(90), at(100));
        RestorationJson { scope, pool, name, incidents: took.len(), median_ms, p90_ms, worst_ms }
    };
    all.into_iter().filter(|(_, took)| !took.is_empty()).map(restoration).collect()
}

/// The page that was asked for.
pub(super) fn page(standings: &[Standing], told: &Told, form: Form) -> String {
    let json = SloJson {
        objectives: standings.iter().map(ObjectiveJson::new).collect(),
        restoration: restorations(told),
    };
    if form == Form::Text {
        return text(&json);
    }
    serde_json::to_string_pretty(&json).unwrap_or_default() + "\n"
}

fn text(json: &SloJson) -> String {
    let mut out = String::new();
    if json.objectives.is_empty() {
        out.push_str(
            "nothing is promised: add `slo = { availability = \"99.9%\" }` to a route or a pool\n",
        );
    } else {
        let _ = writeln!(
            out,
            "{:<44}{:>9}{:>10}{:>10}{:>10}{:>13}{:>8}{:>8}  ALERT",
            "OBJECTIVE", "PROMISED", "1H", "24H", "30D", "BUDGET LEFT", "BURN 1H", "6H"
        );
    }
    for one in &json.objectives {
        let pool = one.pool.as_ref().map(|pool| format!("{pool} ")).unwrap_or_default();
        let under = one.under_ms.map(|ms| format!(" under {}", time(ms))).unwrap_or_default();
        let what = format!("{} {pool}{} {}{under}", one.scope, one.name, one.objective);
        let kept = |window: &str| one.windows.get(window).map(shown).unwrap_or_default();
        let left = one.windows.get("30d").map_or(0.0, |window| window.budget_left * 100.0);
        let burn = |window: &str| one.burn_rates.get(window).copied().unwrap_or(0.0);
        let _ = write!(
            out,
            "{what:<44}{:>9}{:>10}{:>10}{:>10}{:>13}{:>8.1}{:>8.1}",
            percent(one.promised),
            kept("1h"),
            kept("24h"),
            kept("30d"),
            format!("{left:.0} %"),
            burn("1h"),
            burn("6h")
        );
        if !one.alerts.is_empty() {
            let _ = write!(out, "  {}", one.alerts.join(", "));
        }
        out.push('\n');
    }
    if !json.restoration.is_empty() {
        out.push_str("\nfrom onset to restoration, of so many incidents that are kept\n");
    }
    for one in &json.restoration {
        let (median, p90) = (time(one.median_ms), time(one.p90_ms));
        let what = format!("{} {} {}", one.scope, one.pool, one.name);
        let worst = time(one.worst_ms);
        let _ = writeln!(
            out,
            "  {what:<42}median {median}, p90 {p90}, worst {worst}, of {}",
            one.incidents
        );
    }
    out
}

fn shown(window: &WindowJson) -> String {
    if window.requests == 0 { "-".to_owned() } else { percent(window.kept) }
}

/// `99.95%`, with no more digits than say something.
fn percent(share: f64) -> String {
    let text = format!("{:.4}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

fn time(ms: f64) -> String {
    span(Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default())
}

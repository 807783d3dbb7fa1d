//! Objectives and restoration times of zones and regions, as JSON and as plain text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::app::ops::explain::text::duration_text;
use crate::logic::incident::slo::{BURN_RATE_ALERTS, SloCounts, SloWindow};

use super::error_budgets::{ObjectiveKind, ObjectiveStatus};
use super::incident_store::IncidentReport;
use super::joined_incidents::IncidentEntry;
use super::query::IncidentFormat;

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

/// Durations from onset to restoration, over all stored incidents.
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
    fn new(status: &ObjectiveStatus) -> Self {
        let objective = &status.objective;
        let window = |(span, counts): (SloWindow, SloCounts)| {
            let window = WindowJson {
                requests: counts.total,
                bad: counts.bad,
                kept: counts.good_ratio(),
                nines: counts.nines(),
                budget_left: counts.budget_left(objective.target_share),
            };
            (span.as_str(), window)
        };
        let burn = |span: SloWindow| (span.as_str(), status.burn_rate(span));
        let alerts = BURN_RATE_ALERTS.iter().filter(|alert| status.is_alerting(alert));
        Self {
            objective: objective.kind_text(),
            scope: objective.scope,
            name: objective.name.clone(),
            pool: objective.pool.clone(),
            promised: objective.target_share,
            under_ms: match objective.kind {
                ObjectiveKind::Availability => None,
                ObjectiveKind::Latency(under) => Some(under.as_secs_f64() * 1e3),
            },
            windows: SloWindow::BUDGET_WINDOWS
                .into_iter()
                .zip(status.budgets)
                .map(window)
                .collect(),
            burn_rates: SloWindow::BURN_RATE_WINDOWS.into_iter().map(burn).collect(),
            alerts: alerts.map(|alert| alert.name).collect(),
        }
    }
}

/// Each failure counts once for its zone and once for its region, joined with what failed at the
/// same time.
fn restorations(report: &IncidentReport) -> Vec<RestorationJson> {
    let mut all: BTreeMap<(&'static str, String, String), Vec<u64>> = BTreeMap::new();
    let is_in = |outer: &[IncidentEntry], id: u64| {
        outer.iter().any(|outer| outer.members.binary_search(&id).is_ok())
    };
    let alone = report.endpoints.iter().filter(|one| !is_in(&report.zones, one.record.id));
    for entry in report.zones.iter().chain(alone) {
        let key = ("zone", entry.record.pool.clone(), entry.record.place.clone());
        all.entry(key).or_default().extend(entry.record.restoration_us());
    }
    for entry in report.top_level() {
        let key = ("region", entry.record.pool.clone(), entry.record.region().to_owned());
        all.entry(key).or_default().extend(entry.record.restoration_us());
    }
    let restoration = |((scope, pool, name), mut durations_us): ((_, String, String), Vec<u64>)| {
        durations_us.sort_unstable();
        let at = |percent: usize| {
            let rank = (durations_us.len() * percent).div_ceil(100).max(1) - 1;
            durations_us.get(rank).map_or(0.0, |&us| us as f64 / 1e3)
        };
        let (median_ms, p90_ms, worst_ms) = (at(50), at(90), at(100));
        RestorationJson {
            scope,
            pool,
            name,
            incidents: durations_us.len(),
            median_ms,
            p90_ms,
            worst_ms,
        }
    };
    all.into_iter().filter(|(_, durations_us)| !durations_us.is_empty()).map(restoration).collect()
}

/// The page in the requested format.
pub(super) fn render(
    statuses: &[ObjectiveStatus],
    report: &IncidentReport,
    format: IncidentFormat,
) -> String {
    let json = SloJson {
        objectives: statuses.iter().map(ObjectiveJson::new).collect(),
        restoration: restorations(report),
    };
    if format == IncidentFormat::Text {
        return render_text(&json);
    }
    serde_json::to_string_pretty(&json).unwrap_or_default() + "\n"
}

fn render_text(json: &SloJson) -> String {
    let mut out = String::new();
    if json.objectives.is_empty() {
        out.push_str(
            "no objectives: add `slo = { availability = \"99.9%\" }` to a route or a pool\n",
        );
    } else {
        let _ = writeln!(
            out,
            "{:<44}{:>9}{:>10}{:>10}{:>10}{:>13}{:>8}{:>8}  ALERT",
            "OBJECTIVE", "TARGET", "1H", "24H", "30D", "BUDGET LEFT", "BURN 1H", "6H"
        );
    }
    for one in &json.objectives {
        let pool = one.pool.as_ref().map(|pool| format!("{pool} ")).unwrap_or_default();
        let under = one.under_ms.map(|ms| format!(" under {}", ms_text(ms))).unwrap_or_default();
        let subject = format!("{} {pool}{} {}{under}", one.scope, one.name, one.objective);
        let kept_text = |window: &str| one.windows.get(window).map(window_text).unwrap_or_default();
        let left = one.windows.get("30d").map_or(0.0, |window| window.budget_left * 100.0);
        let burn = |window: &str| one.burn_rates.get(window).copied().unwrap_or(0.0);
        let _ = write!(
            out,
            "{subject:<44}{:>9}{:>10}{:>10}{:>10}{:>13}{:>8.1}{:>8.1}",
            percent_text(one.promised),
            kept_text("1h"),
            kept_text("24h"),
            kept_text("30d"),
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
        out.push_str("\nfrom onset to restoration, over the stored incidents\n");
    }
    for one in &json.restoration {
        let (median, p90) = (ms_text(one.median_ms), ms_text(one.p90_ms));
        let subject = format!("{} {} {}", one.scope, one.pool, one.name);
        let worst = ms_text(one.worst_ms);
        let _ = writeln!(
            out,
            "  {subject:<42}median {median}, p90 {p90}, worst {worst}, of {}",
            one.incidents
        );
    }
    out
}

fn window_text(window: &WindowJson) -> String {
    if window.requests == 0 { "-".to_owned() } else { percent_text(window.kept) }
}

/// `99.95%`, without trailing zeros.
fn percent_text(share: f64) -> String {
    let text = format!("{:.4}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

fn ms_text(ms: f64) -> String {
    duration_text(Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default())
}

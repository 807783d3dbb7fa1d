//! The result as text.

use std::io::{self, Write};
use std::time::Duration;

use super::toml::detect_table;
use super::{TuningRequest, subjects_with_results, with_tuned_window};
use crate::cli::predict::false_positives::format_number;
use crate::cli::predict::{to_ms, unseen_word};
use crate::config::units::format_duration;
use crate::logic::model::topology::{DetectionSpec, PoolSpec};
use crate::sim::predict::{FaultKind, PredictedWindow, PredictionRow};
use crate::sim::tune::{
    self, TuneConstraint, TuneResult, TuneSubject, TunedPool, WindowEvaluation,
};

/// Writes the target, the windows before and after, their cost, and the tables to paste into the
/// file.
pub(super) fn write_text(
    request: &TuningRequest<'_>,
    result: &TuneResult,
    out: &mut impl Write,
) -> io::Result<()> {
    let requirements = &request.requirements;
    writeln!(
        out,
        "target {}: the 99th percentile of every class that probes notice, without any traffic",
        format_duration(requirements.target)
    )?;
    for (subject, tuned) in subjects_with_results(request, result) {
        write_observed(request, subject, out)?;
        write_comparison(subject, tuned, out)?;
        if let Some(after) = &tuned.after {
            write_changes(subject, &tuned.before, after, out)?;
        }
    }
    writeln!(out)?;
    write_totals(request, result, out)?;
    if !result.is_met {
        write_unmet(request, result, out)?;
    }
    for tuned in &result.pools {
        if let Some(after) = &tuned.after {
            write!(out, "\n{}", detect_table(&tuned.pool, &after.detect))?;
        }
    }
    Ok(())
}

/// Writes the latency and loss that the pool was tuned for.
fn write_observed(
    request: &TuningRequest<'_>,
    subject: &TuneSubject<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let latency = &subject.input.latency;
    let quantile =
        |share: f64| format_duration(truncate_to_micros(latency.upper_quantile(1.0 - share)));
    let name = &subject.pool.name;
    let loss = format_number(subject.probe_loss * 1e2);
    let round_trip = format_duration(truncate_to_micros(subject.input.round_trip));
    write!(out, "\npool {name}: answers take {} (99 %: {}), ", quantile(0.5), quantile(0.99))?;
    writeln!(out, "a round trip {round_trip}, {loss} % of a probe's attempts are lost")?;
    if request.unobserved_pools.contains(&&**name) {
        writeln!(out, "  nothing was observed of this pool: these are assumptions")?;
    }
    Ok(())
}

/// Truncates to microseconds.
fn truncate_to_micros(duration: Duration) -> Duration {
    Duration::from_micros(duration.as_micros() as u64)
}

/// The rows of both windows side by side.
fn write_comparison(
    subject: &TuneSubject<'_>,
    tuned: &TunedPool,
    out: &mut impl Write,
) -> io::Result<()> {
    let heading = "from onset to verdict, in ms";
    writeln!(out, "  {heading:<29} {:>17} {:>19}", "as it is", "as it would be")?;
    writeln!(out, "  {:<29} {:>8} {:>8}   {:>8} {:>8}", "", "median", "p99", "median", "p99")?;
    let after = tuned.after.as_ref().map(|after| &after.prediction.rows);
    let mut traffic = None;
    let (mut unseen, mut unseen_reason): (Vec<FaultKind>, &str) = (Vec::new(), "");
    for (index, row) in tuned.before.prediction.rows.iter().enumerate() {
        if let PredictedWindow::Undetected(reason) = row.window {
            if row.traffic_rps.is_none() && !unseen.contains(&row.fault) {
                unseen.push(row.fault);
                unseen_reason = unseen_word(reason);
            }
            continue;
        }
        if let Some(rate) = row.traffic_rps.filter(|_| traffic != row.traffic_rps) {
            traffic = row.traffic_rps;
            writeln!(out, "  with {rate} req/s")?;
        }
        let name = format!("{} {}", row.scope.as_str(), row.fault);
        let after_text =
            after.and_then(|rows| rows.get(index)).map_or_else(String::new, window_figures);
        writeln!(out, "  {name:<29} {}   {after_text}", window_figures(row))?;
    }
    if !unseen.is_empty() {
        let names: Vec<&str> = unseen.iter().map(|fault| fault.as_str()).collect();
        let reasons = if unseen.len() == 1 { unseen_reason } else { "see `gapless predict`" };
        writeln!(out, "  not noticed by its probes: {} ({reasons})", names.join(", "))?;
    }
    let probe_rate = |state: &WindowEvaluation| {
        format!("{:>17}", format_number(state.probes_per_second) + " probes/s")
    };
    let false_verdict_rate =
        |state: &WindowEvaluation| format!("{:>17}", yearly_rate(state.false_verdicts_yearly));
    let after_text = |of: &dyn Fn(&WindowEvaluation) -> String| {
        tuned.after.as_ref().map_or_else(String::new, |after| format!("   {}", of(after)))
    };
    let endpoints: usize = subject.pool.zones.iter().map(|zone| zone.endpoints.len()).sum();
    let name = format!("{endpoints} endpoints");
    writeln!(out, "  {name:<29} {}{}", probe_rate(&tuned.before), after_text(&probe_rate))?;
    writeln!(
        out,
        "  {:<29} {}{}",
        "false verdicts",
        false_verdict_rate(&tuned.before),
        after_text(&false_verdict_rate)
    )
}

fn window_figures(row: &PredictionRow) -> String {
    match row.window {
        PredictedWindow::Detected { spread, .. } => {
            format!("{:>8.1} {:>8.1}", to_ms(spread.median), to_ms(spread.p99))
        }
        PredictedWindow::Undetected(_) => format!("{:>8} {0:>8}", "-"),
    }
}

/// Writes each changed key and the effect of the change.
fn write_changes(
    subject: &TuneSubject<'_>,
    before: &WindowEvaluation,
    after: &WindowEvaluation,
    out: &mut impl Write,
) -> io::Result<()> {
    let (old, new) = (before.detect, after.detect);
    let change = |from: Duration, to: Duration| {
        format!("{} → {}", format_duration(from), format_duration(to))
    };
    if old.interval != new.interval {
        let factor = format_number(after.probes_per_second / before.probes_per_second);
        let what = change(old.interval, new.interval);
        writeln!(out, "  interval {what}: {factor} times the probes")?;
    }
    if old.timeout != new.timeout {
        let pool = with_tuned_window(subject, after);
        let [then, now] = [subject.pool, &pool].map(|pool| tune::strike_chance(pool, subject));
        let what = change(old.timeout, new.timeout);
        let (then, now) = (chance_text(then), chance_text(now));
        writeln!(
            out,
            "  timeout {what}: a probe of a healthy endpoint fails {now} instead of {then}"
        )?;
    }
    let silence = |detect: DetectionSpec| {
        format!("{} × {}", detect.down_after, format_duration(detect.timeout))
    };
    if silence(old) != silence(new) {
        writeln!(
            out,
            "  silence is a verdict after {} instead of {}: an endpoint that stops for longer is down",
            silence(new),
            silence(old)
        )?;
    }
    if new.down_after > 2 {
        write_strike_change(subject, after, out)?;
    } else if new.down_after != old.down_after {
        let (from, to) = (old.down_after, new.down_after);
        writeln!(out, "  down_after {from} → {to}: enough strikes for these losses")?;
    }
    if old.fast_interval != new.fast_interval {
        let what = change(old.fast_interval, new.fast_interval);
        let back = format_duration(new.fast_interval * new.up_after.saturating_sub(1));
        let up_after = new.up_after;
        writeln!(
            out,
            "  fast_interval {what}: suspects are probed as fast as they time out; a recovering \
             endpoint has {up_after} passes within {back}"
        )?;
    }
    if old.down_interval != new.down_interval {
        let what = change(old.down_interval, new.down_interval);
        writeln!(out, "  down_interval {what}: no shorter than the timeout")?;
    }
    Ok(())
}

/// Writes the effect of the last strike of `down_after` on false verdicts.
fn write_strike_change(
    subject: &TuneSubject<'_>,
    after: &WindowEvaluation,
    out: &mut impl Write,
) -> io::Result<()> {
    let new = after.detect;
    let one_fewer = PoolSpec {
        detect: DetectionSpec { down_after: new.down_after - 1, ..new },
        ..subject.pool.clone()
    };
    let without = yearly_rate(tune::false_verdicts_yearly(&one_fewer, subject));
    writeln!(
        out,
        "  down_after {} instead of {}: false verdicts {without} → {}, {} slower",
        new.down_after,
        one_fewer.detect.down_after,
        yearly_rate(after.false_verdicts_yearly),
        format_duration(new.timeout.max(new.fast_interval)),
    )
}

fn yearly_rate(rate: f64) -> String {
    match rate {
        0.0 => "never".to_owned(),
        rate if rate < 1e-6 => "< 1.0e-6/year".to_owned(),
        rate => format_number(rate) + "/year",
    }
}

fn chance_text(chance: f64) -> String {
    match chance {
        0.0 => "never".to_owned(),
        chance if chance >= 0.5 => "nearly always".to_owned(),
        chance => format!("once in {}", format_number(1.0 / chance)),
    }
}

fn write_totals(
    request: &TuningRequest<'_>,
    result: &TuneResult,
    out: &mut impl Write,
) -> io::Result<()> {
    let others = request.other_probes_per_second;
    let before: f64 = result.pools.iter().map(|pool| pool.before.probes_per_second).sum();
    let after: Option<f64> =
        result.pools.iter().map(|pool| Some(pool.after.as_ref()?.probes_per_second)).sum();
    let after = after.map_or_else(|| "-".to_owned(), |after| format_number(after + others));
    writeln!(
        out,
        "whole configuration: {} → {after} probes/s (at most {})",
        format_number(before + others),
        format_number(result.budget_probes_per_second + others),
    )
}

/// Writes why the target cannot be met, and the best window that can.
fn write_unmet(
    request: &TuningRequest<'_>,
    result: &TuneResult,
    out: &mut impl Write,
) -> io::Result<()> {
    let target = format_duration(request.requirements.target);
    writeln!(out, "\nThe target of {target} cannot be met:")?;
    for tuned in &result.pools {
        for constraint in &tuned.constraints {
            writeln!(out, "  pool {}: {}", tuned.pool, constraint_text(request, constraint))?;
        }
    }
    if let Some(needed) = result.required_probes_per_second {
        let (needed, budget) = (
            format_number(needed + request.other_probes_per_second),
            format_number(result.budget_probes_per_second + request.other_probes_per_second),
        );
        writeln!(
            out,
            "  probe budget: it takes {needed} probes/s, and --probe-budget and probes.per_second \
             allow {budget}"
        )?;
    }
    match result.reachable {
        Some(reachable) => {
            writeln!(out, "  The best reachable target is {}:", format_duration(reachable))
        }
        None => writeln!(out, "  No other window meets it either."),
    }
}

fn constraint_text(request: &TuningRequest<'_>, constraint: &TuneConstraint) -> String {
    match *constraint {
        TuneConstraint::Undetected(fault, why) => {
            let why = unseen_word(why);
            format!("probe: {fault} is not noticed by any probe ({why}), whatever the window")
        }
        TuneConstraint::Timeout(least) => format!(
            "timeout: a probe must wait {}, twelve times the latency (and 25ms at least), and a \
             verdict takes two such probes",
            format_duration(least)
        ),
        TuneConstraint::FalseVerdicts(least) => format!(
            "false verdicts: {} are the fewest within the target, and fewer than {} are required by \
             --false-verdicts",
            yearly_rate(least),
            yearly_rate(request.requirements.false_verdicts_yearly)
        ),
        TuneConstraint::Simulation(p99) => {
            format!(
                "simulation: {} is the best 99th percentile found",
                format_duration(truncate_to_micros(p99))
            )
        }
    }
}

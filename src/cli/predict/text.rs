//! A prediction as text.

use std::io::{self, Write};
use std::time::Duration;

use crate::logic::model::topology::{DetectionSpec, PoolSpec};
use crate::sim::predict::{
    FaultKind, FaultScope, PredictedWindow, Prediction, PredictionRow, UndetectedReason,
};

use super::{seen_spread, to_ms, unseen_word};

/// Writes the rows of one pool, and a summary in sentences.
pub(super) fn write_pool(
    pool: &PoolSpec,
    prediction: &Prediction,
    out: &mut impl Write,
) -> io::Result<()> {
    let DetectionSpec { interval, timeout, fast_interval, down_after, .. } = pool.detect;
    writeln!(
        out,
        "pool {}: probes every {interval:?} (suspect: {fast_interval:?}), timeout {timeout:?}, \
         down after {down_after}",
        prediction.pool
    )?;
    writeln!(out, "  from onset to verdict, in ms")?;
    let mut shown_traffic = None;
    for row in &prediction.rows {
        if shown_traffic != Some(row.traffic_rps) {
            shown_traffic = Some(row.traffic_rps);
            write_heading(row.traffic_rps, out)?;
        }
        write_row(row, out)?;
    }
    writeln!(out)?;
    write_summary(prediction, out)
}

fn write_heading(traffic_rps: Option<f64>, out: &mut impl Write) -> io::Result<()> {
    let with = match traffic_rps {
        None => "probes alone".to_owned(),
        Some(rate) => format!("with {rate} req/s"),
    };
    writeln!(
        out,
        "\n  {with:<22} {:>8} {:>8} {:>8} {:>8}   closed form, probes alone",
        "best", "median", "p99", "worst"
    )
}

fn write_row(row: &PredictionRow, out: &mut impl Write) -> io::Result<()> {
    let name = format!("{} {}", row.scope.as_str(), row.fault);
    let closed_form = row.closed_form.map_or_else(
        || "-".to_owned(),
        |bounds| format!("{:.1}..{:.1}", to_ms(bounds.best), to_ms(bounds.worst)),
    );
    match row.window {
        PredictedWindow::Detected { spread, within_closed_form } => {
            let deviation = if within_closed_form == Some(false) { " (left!)" } else { "" };
            write!(
                out,
                "  {name:<22} {:>8.1} {:>8.1} {:>8.1} {:>8.1}   {closed_form}{deviation}",
                to_ms(spread.best),
                to_ms(spread.median),
                to_ms(spread.p99),
                to_ms(spread.worst),
            )?;
            match spread.undetected_trials {
                0 => writeln!(out),
                some => {
                    writeln!(out, "   {some} of {} not noticed when waiting ended", spread.trials)
                }
            }
        }
        PredictedWindow::Undetected(reason) => {
            let reason = unseen_word(reason);
            writeln!(out, "  {name:<22} {:>8} {0:>8} {0:>8} {0:>8}   {reason}", "-")
        }
    }
}

/// Writes the summary: the effect on requests, and the faults that are never detected.
fn write_summary(prediction: &Prediction, out: &mut impl Write) -> io::Result<()> {
    let find = |scope, fault, with_traffic| {
        prediction.rows.iter().find(|row| {
            row.scope == scope && row.fault == fault && row.traffic_rps.is_some() == with_traffic
        })
    };
    let zone = format!("The zone {}", prediction.zone);
    let subjects = [(FaultScope::Endpoint, "An endpoint"), (FaultScope::Zone, zone.as_str())];
    for (scope, subject) in subjects {
        for (fault, behavior) in [(FaultKind::Refused, "refuses"), (FaultKind::Hang, "hangs")] {
            let Some(row) = find(scope, fault, false) else { continue };
            let (Some(without_traffic), Some(closed_form)) = (seen_spread(row), row.closed_form)
            else {
                continue;
            };
            write!(
                out,
                "  {subject} that {behavior} gets requests for at most {}, half of the time {}",
                duration_text(closed_form.worst),
                duration_text(without_traffic.median)
            )?;
            let with_traffic = find(scope, fault, true);
            if let Some((rate, with_traffic)) =
                with_traffic.and_then(|row| Some((row.traffic_rps?, seen_spread(row)?)))
            {
                write!(
                    out,
                    "; with {rate} req/s 99 times of 100 at most {}, half of the time {}",
                    duration_text(with_traffic.p99),
                    duration_text(with_traffic.median)
                )?;
            }
            writeln!(out, ".")?;
        }
    }
    write_unseen(prediction, out)
}

fn write_unseen(prediction: &Prediction, out: &mut impl Write) -> io::Result<()> {
    let has_traffic = prediction.rows.iter().any(|row| row.traffic_rps.is_some());
    let of = |why: UndetectedReason| {
        let rows = prediction.rows.iter().filter(|row| row.scope == FaultScope::Endpoint);
        let asked = rows.filter(|row| row.traffic_rps.is_some() == has_traffic);
        let unseen = asked.filter(|row| row.window == PredictedWindow::Undetected(why));
        unseen.map(|row| row.fault.as_str()).collect::<Vec<_>>()
    };
    if !of(UndetectedReason::NeverUp).is_empty() {
        return writeln!(
            out,
            "  No endpoint will ever be up: an answer takes longer than the probe's timeout."
        );
    }
    let reasons = [
        (
            UndetectedReason::ProbePasses,
            "the pool's probe passes all the same. One over HTTP that expects a status and a body \
             sees them.",
        ),
        (UndetectedReason::NeedsTraffic, "no probe sees it. Traffic does: ask with --rate."),
        (
            UndetectedReason::NoVerdict,
            "so little traffic, and a probe that passes, make no verdict.",
        ),
    ];
    for (why, meaning) in reasons {
        let faults = of(why);
        if !faults.is_empty() {
            writeln!(out, "  Not noticed: {}; {meaning}", faults.join(", "))?;
        }
    }
    Ok(())
}

/// Formats in whole milliseconds, or in seconds with one decimal.
fn duration_text(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds >= 0.9995 => format!("{seconds:.1} s"),
        seconds => format!("{:.0} ms", seconds * 1e3),
    }
}

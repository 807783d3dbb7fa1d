//! A prediction as people read it.

use std::io::{self, Write};
use std::time::Duration;

use crate::logic::topology::{Detect, PoolSpec};
use crate::sim::predict::{Fault, Prediction, Row, Scope, Unseen, Window};

use super::{ms, spread, word};

/// Writes the rows of one pool, and what they mean.
pub(super) fn pool(
    pool: &PoolSpec,
    prediction: &Prediction,
    out: &mut impl Write,
) -> io::Result<()> {
    let Detect { interval, timeout, fast_interval, down_after, .. } = pool.detect;
    writeln!(
        out,
        "pool {}: probes every {interval:?} (suspect: {fast_interval:?}), timeout {timeout:?}, \
         down after {down_after}",
        prediction.pool
    )?;
    writeln!(out, "  from onset to verdict, in ms")?;
    let mut of_traffic = None;
    for row in &prediction.rows {
        if of_traffic != Some(row.traffic_rps) {
            of_traffic = Some(row.traffic_rps);
            heading(row.traffic_rps, out)?;
        }
        line(row, out)?;
    }
    writeln!(out)?;
    meaning(prediction, out)
}

fn heading(traffic_rps: Option<f64>, out: &mut impl Write) -> io::Result<()> {
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

fn line(row: &Row, out: &mut impl Write) -> io::Result<()> {
    let name = format!("{} {}", row.scope.as_str(), row.fault);
    let closed_form = row.closed_form.map_or_else(
        || "-".to_owned(),
        |bounds| format!("{:.1}..{:.1}", ms(bounds.best), ms(bounds.worst)),
    );
    match row.window {
        Window::Seen { spread, within_closed_form } => {
            let leaves = if within_closed_form == Some(false) { " (left!)" } else { "" };
            write!(
                out,
                "  {name:<22} {:>8.1} {:>8.1} {:>8.1} {:>8.1}   {closed_form}{leaves}",
                ms(spread.best),
                ms(spread.median),
                ms(spread.p99),
                ms(spread.worst),
            )?;
            match spread.unnoticed {
                0 => writeln!(out),
                some => {
                    writeln!(out, "   {some} of {} not noticed when waiting ended", spread.trials)
                }
            }
        }
        Window::Unseen(why) => {
            let why = word(why);
            writeln!(out, "  {name:<22} {:>8} {0:>8} {0:>8} {0:>8}   {why}", "-")
        }
    }
}

/// The same in words: what it means for requests, and what is never noticed.
fn meaning(prediction: &Prediction, out: &mut impl Write) -> io::Result<()> {
    let find = |scope, fault, with_traffic| {
        prediction.rows.iter().find(|row| {
            row.scope == scope && row.fault == fault && row.traffic_rps.is_some() == with_traffic
        })
    };
    let zone = format!("The zone {}", prediction.zone);
    let subjects = [(Scope::Endpoint, "An endpoint"), (Scope::Zone, zone.as_str())];
    for (scope, subject) in subjects {
        for (fault, does) in [(Fault::Refused, "refuses"), (Fault::Hang, "hangs")] {
            let Some(row) = find(scope, fault, false) else { continue };
            let (Some(alone), Some(closed_form)) = (spread(row), row.closed_form) else { continue };
            write!(
                out,
                "  {subject} that {does} gets requests for at most {}, half of the time {}",
                words(closed_form.worst),
                words(alone.median)
            )?;
            let busy = find(scope, fault, true);
            if let Some((rate, busy)) = busy.and_then(|row| Some((row.traffic_rps?, spread(row)?)))
            {
                write!(
                    out,
                    "; with {rate} req/s 99 times of 100 at most {}, half of the time {}",
                    words(busy.p99),
                    words(busy.median)
                )?;
            }
            writeln!(out, ".")?;
        }
    }
    unseen(prediction, out)
}

fn unseen(prediction: &Prediction, out: &mut impl Write) -> io::Result<()> {
    let has_traffic = prediction.rows.iter().any(|row| row.traffic_rps.is_some());
    let of = |why: Unseen| {
        let rows = prediction.rows.iter().filter(|row| row.scope == Scope::Endpoint);
        let asked = rows.filter(|row| row.traffic_rps.is_some() == has_traffic);
        let unseen = asked.filter(|row| row.window == Window::Unseen(why));
        unseen.map(|row| row.fault.as_str()).collect::<Vec<_>>()
    };
    if !of(Unseen::NeverUp).is_empty() {
        return writeln!(
            out,
            "  No endpoint will ever be up: an answer takes longer than the probe's timeout."
        );
    }
    let reasons = [
        (
            Unseen::ProbePasses,
            "the pool's probe passes all the same. One over HTTP that expects a status and a body \
             sees them.",
        ),
        (Unseen::NeedsTraffic, "no probe sees it. Traffic does: ask with --rate."),
        (Unseen::NotNoticed, "so little traffic, and a probe that passes, make no verdict."),
    ];
    for (why, meaning) in reasons {
        let faults = of(why);
        if !faults.is_empty() {
            writeln!(out, "  Not noticed: {}; {meaning}", faults.join(", "))?;
        }
    }
    Ok(())
}

/// Two digits are all that a sentence needs.
fn words(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds >= 0.9995 => format!("{seconds:.1} s"),
        seconds => format!("{:.0} ms", seconds * 1e3),
    }
}

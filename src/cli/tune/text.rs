//! The answer as people read it.

use std::io::{self, Write};
use std::time::Duration;

use super::toml::{table, words};
use super::{Asked, pairs, tuned_pool};
use crate::cli::predict::falsely::number;
use crate::cli::predict::{ms, word};
use crate::logic::topology::{Detect, PoolSpec};
use crate::sim::predict::{Fault, Row, Window};
use crate::sim::tune::{self, Answer, Constraint, State, Subject, Tuned};

/// Writes it all: what was asked, what comes of it, what it costs, what is to be pasted.
pub(super) fn write(asked: &Asked<'_>, answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    let wishes = &asked.wishes;
    writeln!(
        out,
        "target {}: the 99th percentile of every class that probes notice, without any traffic",
        words(wishes.target)
    )?;
    for (subject, tuned) in pairs(asked, answer) {
        observed(asked, subject, out)?;
        before_and_after(subject, tuned, out)?;
        if let Some(after) = &tuned.after {
            given_up(subject, &tuned.before, after, out)?;
        }
    }
    writeln!(out)?;
    totals(asked, answer, out)?;
    if !answer.is_met {
        unmet(asked, answer, out)?;
    }
    for tuned in &answer.pools {
        if let Some(after) = &tuned.after {
            write!(out, "\n{}", table(&tuned.pool, &after.detect))?;
        }
    }
    Ok(())
}

/// What the pool was taken for.
fn observed(asked: &Asked<'_>, subject: &Subject<'_>, out: &mut impl Write) -> io::Result<()> {
    let latency = &subject.question.latency;
    let of = |share: f64| words(micros(latency.exceeded_by(1.0 - share)));
    let name = &subject.pool.name;
    let loss = number(subject.probe_loss * 1e2);
    let trip = words(micros(subject.question.round_trip));
    write!(out, "\npool {name}: answers take {} (99 %: {}), ", of(0.5), of(0.99))?;
    writeln!(out, "a round trip {trip}, {loss} % of a probe's attempts are lost")?;
    if asked.unknown.contains(&&**name) {
        writeln!(out, "  nothing was observed of this pool: these are assumptions")?;
    }
    Ok(())
}

/// As long, to the microsecond.
fn micros(duration: Duration) -> Duration {
    Duration::from_micros(duration.as_micros() as u64)
}

/// The rows of both windows side by side.
fn before_and_after(subject: &Subject<'_>, tuned: &Tuned, out: &mut impl Write) -> io::Result<()> {
    let heading = "from onset to verdict, in ms";
    writeln!(out, "  {heading:<29} {:>17} {:>19}", "as it is", "as it would be")?;
    writeln!(out, "  {:<29} {:>8} {:>8}   {:>8} {:>8}", "", "median", "p99", "median", "p99")?;
    let after = tuned.after.as_ref().map(|after| &after.prediction.rows);
    let mut traffic = None;
    let (mut unseen, mut why): (Vec<Fault>, &str) = (Vec::new(), "");
    for (index, row) in tuned.before.prediction.rows.iter().enumerate() {
        if let Window::Unseen(reason) = row.window {
            if row.traffic_rps.is_none() && !unseen.contains(&row.fault) {
                unseen.push(row.fault);
                why = word(reason);
            }
            continue;
        }
        if let Some(rate) = row.traffic_rps.filter(|_| traffic != row.traffic_rps) {
            traffic = row.traffic_rps;
            writeln!(out, "  with {rate} req/s")?;
        }
        let name = format!("{} {}", row.scope.as_str(), row.fault);
        let then = after.and_then(|rows| rows.get(index)).map_or_else(String::new, figures);
        writeln!(out, "  {name:<29} {}   {then}", figures(row))?;
    }
    if !unseen.is_empty() {
        let names: Vec<&str> = unseen.iter().map(|fault| fault.as_str()).collect();
        let reasons = if unseen.len() == 1 { why } else { "see `gapless predict`" };
        writeln!(out, "  not noticed by its probes: {} ({reasons})", names.join(", "))?;
    }
    let costs = |state: &State| format!("{:>17}", number(state.probes_per_second) + " probes/s");
    let falsely = |state: &State| format!("{:>17}", yearly(state.false_yearly));
    let then = |of: &dyn Fn(&State) -> String| {
        tuned.after.as_ref().map_or_else(String::new, |after| format!("   {}", of(after)))
    };
    let endpoints: usize = subject.pool.zones.iter().map(|zone| zone.endpoints.len()).sum();
    let name = format!("{endpoints} endpoints");
    writeln!(out, "  {name:<29} {}{}", costs(&tuned.before), then(&costs))?;
    writeln!(out, "  {:<29} {}{}", "false verdicts", falsely(&tuned.before), then(&falsely))
}

fn figures(row: &Row) -> String {
    match row.window {
        Window::Seen { spread, .. } => {
            format!("{:>8.1} {:>8.1}", ms(spread.median), ms(spread.p99))
        }
        Window::Unseen(_) => format!("{:>8} {0:>8}", "-"),
    }
}

/// What was given up for what.
fn given_up(
    subject: &Subject<'_>,
    before: &State,
    after: &State,
    out: &mut impl Write,
) -> io::Result<()> {
    let (old, new) = (before.detect, after.detect);
    let change = |from: Duration, to: Duration| format!("{} → {}", words(from), words(to));
    if old.interval != new.interval {
        let factor = number(after.probes_per_second / before.probes_per_second);
        let what = change(old.interval, new.interval);
        writeln!(out, "  interval {what}: {factor} times the probes")?;
    }
    if old.timeout != new.timeout {
        let pool = tuned_pool(subject, after);
        let [then, now] = [subject.pool, &pool].map(|pool| tune::strike_chance(pool, subject));
        let what = change(old.timeout, new.timeout);
        let (then, now) = (often(then), often(now));
        writeln!(
            out,
            "  timeout {what}: a probe of a healthy endpoint fails {now} instead of {then}"
        )?;
    }
    if new.down_after > 2 {
        strikes(subject, after, out)?;
    } else if new.down_after != old.down_after {
        let (from, to) = (old.down_after, new.down_after);
        writeln!(out, "  down_after {from} → {to}: so many strikes are enough with these losses")?;
    }
    if old.fast_interval != new.fast_interval {
        let what = change(old.fast_interval, new.fast_interval);
        let back = words(new.fast_interval * new.up_after.saturating_sub(1));
        let up_after = new.up_after;
        writeln!(
            out,
            "  fast_interval {what}: suspects are looked at as fast as they time out; who returns \
             has {up_after} passes within {back}"
        )?;
    }
    if old.down_interval != new.down_interval {
        let what = change(old.down_interval, new.down_interval);
        writeln!(out, "  down_interval {what}: no shorter than the timeout")?;
    }
    Ok(())
}

/// What the last of many strikes is worth.
fn strikes(subject: &Subject<'_>, after: &State, out: &mut impl Write) -> io::Result<()> {
    let new = after.detect;
    let fewer = PoolSpec {
        detect: Detect { down_after: new.down_after - 1, ..new },
        ..subject.pool.clone()
    };
    let without = yearly(tune::false_yearly(&fewer, subject));
    writeln!(
        out,
        "  down_after {} instead of {}: false verdicts {without} → {}, {} slower",
        new.down_after,
        fewer.detect.down_after,
        yearly(after.false_yearly),
        words(new.timeout.max(new.fast_interval)),
    )
}

fn yearly(rate: f64) -> String {
    match rate {
        0.0 => "never".to_owned(),
        rate if rate < 1e-6 => "< 1.0e-6/year".to_owned(),
        rate => number(rate) + "/year",
    }
}

fn often(chance: f64) -> String {
    match chance {
        0.0 => "never".to_owned(),
        chance if chance >= 0.5 => "nearly always".to_owned(),
        chance => format!("once in {}", number(1.0 / chance)),
    }
}

fn totals(asked: &Asked<'_>, answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    let others = asked.others;
    let before: f64 = answer.pools.iter().map(|pool| pool.before.probes_per_second).sum();
    let after: Option<f64> =
        answer.pools.iter().map(|pool| Some(pool.after.as_ref()?.probes_per_second)).sum();
    let after = after.map_or_else(|| "-".to_owned(), |after| number(after + others));
    writeln!(
        out,
        "whole configuration: {} → {after} probes/s (at most {})",
        number(before + others),
        number(answer.budget + others),
    )
}

/// Why the target cannot be met, and what can.
fn unmet(asked: &Asked<'_>, answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    let target = words(asked.wishes.target);
    writeln!(out, "\nThe target of {target} cannot be met:")?;
    for tuned in &answer.pools {
        for constraint in &tuned.binding {
            writeln!(out, "  pool {}: {}", tuned.pool, in_the_way(asked, constraint))?;
        }
    }
    if let Some(needed) = answer.over_budget {
        let (needed, budget) =
            (number(needed + asked.others), number(answer.budget + asked.others));
        writeln!(
            out,
            "  probe budget: it takes {needed} probes/s, and {budget} are allowed; --probe-budget and \
             probes.per_second say so"
        )?;
    }
    match answer.reachable {
        Some(reachable) => {
            writeln!(out, "  The best that can be had is {}:", words(reachable))
        }
        None => writeln!(out, "  No other window would do either."),
    }
}

fn in_the_way(asked: &Asked<'_>, constraint: &Constraint) -> String {
    match *constraint {
        Constraint::Unseen(fault, why) => {
            let why = word(why);
            format!("probe: {fault} is not noticed by any probe ({why}), whatever the window")
        }
        Constraint::Timeout(least) => format!(
            "timeout: a probe must wait {}, twelve times as long as an answer takes (and 25ms at \
             least), twice, and no more often than that",
            words(least)
        ),
        Constraint::FalseVerdicts(least) => format!(
            "false verdicts: {} are the fewest within the target, and fewer than {} are wished; \
             --false-verdicts says so",
            yearly(least),
            yearly(asked.wishes.false_yearly)
        ),
        Constraint::Simulation(p99) => {
            format!("simulation: it finds {} at least, whatever is tried", words(micros(p99)))
        }
    }
}

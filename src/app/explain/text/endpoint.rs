//! An endpoint, explained to people.

use std::time::Instant;

use crate::app::api::Clock;
use crate::app::explain::Names;
use crate::app::orders::line;
use crate::logic::director::{
    Cadence, EndpointFacts, Piece, ProbeFacts, Row, Source, Standing, Trial,
};
use crate::logic::health::Health;
use crate::logic::outcome::{Failure, Outcome};
use crate::logic::probe::Role;
use crate::logic::ratio::{CLEARED, DOUBT, GUILTY};
use crate::logic::recovery::FULL;

use super::{Page, columns, counted, percent, span, thousandths, zone_outlook, zone_verdict};

pub(super) fn render(facts: &EndpointFacts, names: &Names<'_>, clock: &Clock, page: &mut Page) {
    page.title(&title(facts, page));
    page.section("since", [clock.text(facts.since)]);
    page.section("found by", names(&facts.subject.pool, facts.subject.address));
    page.section("traffic", traffic(facts, page));
    page.section("verdict", verdict(facts, page));
    let now = page.now;
    page.section("orders", facts.orders.iter().map(|order| line(order, clock, now)));
    let evidence = |piece: &Piece| {
        let Piece { at, source, failure } = *piece;
        [ago(at, page), source.as_str().to_owned(), failure.to_string()]
    };
    let rows: Vec<[String; 3]> = facts.evidence.iter().rev().map(evidence).collect();
    page.section("evidence", columns(&rows));
    let rows: Vec<[String; 3]> = facts.probes.iter().rev().map(|one| probe(one, page)).collect();
    page.section("probes", columns(&rows));
    page.section("next", [next(facts, page)]);
    page.section("window", [window(facts)]);
    page.section("doubt", [doubt(facts)]);
    let zone = &facts.zone;
    let (verdict, counts) = (zone_verdict(zone, page), counted(&zone.counts));
    let first = format!(
        "{}: {verdict}; {counts}; {} of the pool's traffic",
        zone.place,
        percent(zone.share)
    );
    let lines: Vec<String> = std::iter::once(first).chain(zone_outlook(zone, page)).collect();
    page.section("zone", lines);
    page.pool(&facts.pool);
}

/// What it is suspected or down for, and by whom.
pub(in crate::app::explain) fn reason(facts: &EndpointFacts) -> Option<(Failure, Option<Source>)> {
    match facts.health {
        Health::Suspect { failure, .. } => {
            Some((failure, facts.evidence.last().map(|piece| piece.source)))
        }
        Health::Down { failure } | Health::Returning { failure, .. } => {
            Some((failure, facts.cause.map(|piece| piece.source)))
        }
        Health::Unknown { .. } | Health::Up => None,
    }
}

fn title(facts: &EndpointFacts, page: &Page) -> String {
    let subject = &facts.subject;
    let mut title = format!(
        "{} in {}, pool {}: {} for {}",
        subject.address,
        subject.place,
        subject.pool,
        facts.health.as_str().to_uppercase(),
        page.since(facts.since)
    );
    if let Some((failure, source)) = reason(facts) {
        title.push_str(&format!(" — {failure}"));
        if let Some(source) = source {
            title.push_str(&format!(", by {}", source.as_str()));
        }
    }
    if facts.standing == Standing::Drained {
        title.push_str("; DRAINED");
        for order in &facts.orders {
            title.push_str(&format!(" by order {} ({})", order.id, order.by.as_str()));
        }
    } else if let Some(why) = facts.withheld {
        title.push_str(&format!("; the verdict is withheld: {}", why.as_str()));
    } else if facts.pool.panic {
        title.push_str("; gets traffic like all others, its pool is in panic");
    } else if facts.standing == Standing::Resort {
        title.push_str("; the last resort only, its zone is down");
    } else if facts.is_degraded && !facts.health.is_down() {
        title.push_str("; degraded");
    }
    title
}

fn traffic(facts: &EndpointFacts, page: &Page) -> Vec<String> {
    let mut weight = format!("weight {}", facts.weight);
    if (facts.weight_now - f64::from(facts.weight)).abs() > 1e-9 {
        weight.push_str(&format!(" (now {:.2}", facts.weight_now));
        if facts.ramp < FULL {
            weight.push_str(&format!(", its share has grown to {}", thousandths(facts.ramp)));
        }
        weight.push_str(if facts.is_degraded { ", degraded)" } else { ")" });
    }
    let gets = match facts.standing {
        Standing::Drained => "none: an operator has drained it",
        _ if facts.pool.panic => "as all others",
        Standing::Out => "none",
        Standing::Unknown => "none before its first pass",
        Standing::Clear => "any request",
        Standing::Doubted => "requests that can be sent again",
        Standing::Suspect => "requests that nobody else can serve",
        Standing::Resort => "requests that no endpoint outside its zone can serve",
        Standing::Trial => "trials: single requests that can be sent again",
    };
    let answered = match facts.last_answer {
        Some(at) => format!("last answered well {} ago", page.since(at)),
        None => "never answered yet".to_owned(),
    };
    let share = percent(facts.share);
    vec![
        format!("{share} of the pool's, {weight}; gets {gets}"),
        format!("{} in flight, {answered}", facts.in_flight),
    ]
}

fn verdict(facts: &EndpointFacts, page: &Page) -> Vec<String> {
    let row = match facts.row {
        Row::Strikes { count, needed } => format!("{count} of {needed} strikes in a row"),
        Row::Passes { count, needed } => format!("{count} of {needed} passes in a row"),
    };
    let flaps = match facts.hold.flaps {
        few if few < 0.05 => "no verdicts of late".to_owned(),
        count => format!("{count:.1} verdicts of late"),
    };
    let mut lines = vec![format!("{row}; {flaps}")];
    if let Some(until) = facts.hold.until {
        lines.push(format!("held down for {} more, however often it passes", page.until(until)));
    }
    match facts.trial {
        None => {}
        Some(Trial::Held { until }) => {
            lines.push(format!("held down for {} more, then on trial", page.until(until)));
        }
        Some(Trial::Running { good_in_a_row, needed, gap, taken, patience_until }) => {
            lines.push(format!(
                "on trial: {good_in_a_row} of {needed} answered well in a row, one each {} at most; \
                 {taken} taken so far",
                span(gap)
            ));
            lines.push(format!(
                "without any trial it gets its chance in {}",
                page.until(patience_until)
            ));
        }
    }
    lines
}

/// How a probe ended, in words.
fn probe(probe: &ProbeFacts, page: &Page) -> [String; 3] {
    let result = match probe.outcome {
        Outcome::Pass { latency } => format!("pass in {}", span(latency)),
        Outcome::Degraded { latency } => format!("pass in {}, degraded", span(latency)),
        Outcome::Fail(failure) => failure.to_string(),
        Outcome::Void => "void: this process lacked resources".to_owned(),
    };
    let name = format!("#{} {}", probe.index, probe.protocol.unwrap_or("gone"));
    let watch = if probe.role == Role::Watch { " (decides nothing)" } else { "" };
    [ago(probe.started, page), name, format!("{result}{watch}")]
}

fn ago(at: Instant, page: &Page) -> String {
    format!("{} ago", page.since(at))
}

fn next(facts: &EndpointFacts, page: &Page) -> String {
    let next = match facts.next_probe {
        _ if facts.waits_for_budget => "due, and waits for the budget of probes".to_owned(),
        None => "when the running one has ended".to_owned(),
        Some(at) => format!("in {}", page.until(at)),
    };
    let why = match facts.cadence {
        Cadence::New => "nothing is known yet",
        Cadence::Steady => "up",
        Cadence::Vouched => "up, and traffic vouches for it",
        Cadence::Doubted => "up, but requests fail",
        Cadence::Suspect => "suspect",
        Cadence::Returning => "on its way back",
        Cadence::Down => "down",
        Cadence::Panic => "down, and the pool is in panic",
    };
    format!("{next}; every {}: {why}", span(facts.period))
}

fn window(facts: &EndpointFacts) -> String {
    let (refused, silent) = (span(facts.refused_within), span(facts.silent_within));
    format!("when up, found down within {refused} if it refuses, {silent} if it is silent")
}

fn doubt(facts: &EndpointFacts) -> String {
    let failing = match facts.doubt.failing {
        Some(share) => format!("{} of its requests failed of late", percent(share)),
        None => "no requests of late".to_owned(),
    };
    format!(
        "score {:.1}: doubted above {DOUBT}, down above {GUILTY}, cleared below {CLEARED}; {failing}",
        facts.doubt.score
    )
}

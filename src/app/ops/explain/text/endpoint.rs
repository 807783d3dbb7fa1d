//! The explanation of an endpoint as plain text.

use std::time::Instant;

use crate::app::control::orders::order_line;
use crate::app::ops::api::WallClock;
use crate::app::ops::explain::NameLookup;
use crate::logic::director::{
    Cadence, EjectionTrial, Eligibility, EndpointFacts, EvidenceRecord, EvidenceSource, ProbeFacts,
    ProbeStreak,
};
use crate::logic::health::endpoint_health::Health;
use crate::logic::health::failure_ratio::{CLEAR_SCORE, SUSPECT_SCORE, VERDICT_SCORE};
use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::model::outcome::{Failure, ProbeOutcome};
use crate::logic::probing::probe::ProbeRole;

use super::{
    ExplainPage, align_columns, duration_text, percent_text, state_counts_text, thousandths_text,
    zone_outlook_lines, zone_verdict_text,
};

pub(super) fn render(
    facts: &EndpointFacts,
    names: &NameLookup<'_>,
    clock: &WallClock,
    page: &mut ExplainPage,
) {
    page.push_title(&title_line(facts, page));
    page.push_section("since", [clock.to_rfc3339(facts.since)]);
    page.push_section("found by", names(&facts.subject.pool, facts.subject.address));
    page.push_section("traffic", traffic_lines(facts, page));
    page.push_section("verdict", verdict_lines(facts, page));
    let now = page.now;
    page.push_section("orders", facts.orders.iter().map(|order| order_line(order, clock, now)));
    let evidence = |evidence: &EvidenceRecord| {
        let EvidenceRecord { at, source, failure } = *evidence;
        [ago_text(at, page), source.as_str().to_owned(), failure.to_string()]
    };
    let rows: Vec<[String; 3]> = facts.evidence.iter().rev().map(evidence).collect();
    page.push_section("evidence", align_columns(&rows));
    let rows: Vec<[String; 3]> =
        facts.probes.iter().rev().map(|one| probe_row(one, page)).collect();
    page.push_section("probes", align_columns(&rows));
    page.push_section("next", [next_probe_text(facts, page)]);
    page.push_section("window", [detection_window_text(facts)]);
    page.push_section("doubt", [outlier_text(facts)]);
    let zone = &facts.zone;
    let (verdict, counts) = (zone_verdict_text(zone, page), state_counts_text(&zone.counts));
    let first = format!(
        "{}: {verdict}; {counts}; {} of the pool's traffic",
        zone.place,
        percent_text(zone.share)
    );
    let lines: Vec<String> = std::iter::once(first).chain(zone_outlook_lines(zone, page)).collect();
    page.push_section("zone", lines);
    page.push_pool(&facts.pool);
}

/// The failure for which the endpoint is suspect or down, and the source of its evidence.
pub(in crate::app::ops::explain) fn failure_and_source(
    facts: &EndpointFacts,
) -> Option<(Failure, Option<EvidenceSource>)> {
    match facts.health {
        Health::Suspect { failure, .. } => {
            Some((failure, facts.evidence.last().map(|evidence| evidence.source)))
        }
        Health::Down { failure } | Health::Returning { failure, .. } => {
            Some((failure, facts.cause.map(|evidence| evidence.source)))
        }
        Health::Unknown { .. } | Health::Up => None,
    }
}

fn title_line(facts: &EndpointFacts, page: &ExplainPage) -> String {
    let subject = &facts.subject;
    let mut title = format!(
        "{} in {}, pool {}: {} for {}",
        subject.address,
        subject.locality,
        subject.pool,
        facts.health.as_str().to_uppercase(),
        page.elapsed_text(facts.since)
    );
    if let Some((failure, source)) = failure_and_source(facts) {
        title.push_str(&format!(" — {failure}"));
        if let Some(source) = source {
            title.push_str(&format!(", by {}", source.as_str()));
        }
    }
    if facts.eligibility == Eligibility::Drained {
        title.push_str("; DRAINED");
        for order in &facts.orders {
            title.push_str(&format!(" by order {} ({})", order.id, order.source.as_str()));
        }
    } else if let Some(why) = facts.withheld {
        title.push_str(&format!("; the verdict is withheld: {}", why.as_str()));
    } else if facts.pool.is_in_panic {
        title.push_str("; gets traffic like all others, its pool is in panic");
    } else if facts.eligibility == Eligibility::LastResort {
        title.push_str("; the last resort only, its zone is down");
    } else if facts.is_degraded && !facts.health.is_down() {
        title.push_str("; degraded");
    }
    title
}

fn traffic_lines(facts: &EndpointFacts, page: &ExplainPage) -> Vec<String> {
    let mut weight = format!("weight {}", facts.weight);
    if (facts.weight_now - f64::from(facts.weight)).abs() > 1e-9 {
        weight.push_str(&format!(" (now {:.2}", facts.weight_now));
        if facts.ramp < FULL_SHARE_PERMILLE {
            weight.push_str(&format!(", its share has grown to {}", thousandths_text(facts.ramp)));
        }
        weight.push_str(if facts.is_degraded { ", degraded)" } else { ")" });
    }
    let gets = match facts.eligibility {
        Eligibility::Drained => "none: an order drains it",
        _ if facts.pool.is_in_panic => "as all others",
        Eligibility::Out => "none",
        Eligibility::Unknown => "none before its first pass",
        Eligibility::Clear => "any request",
        Eligibility::Doubted => "requests that can be sent again",
        Eligibility::Suspect => "requests that no other endpoint can serve",
        Eligibility::LastResort => "requests that no endpoint outside its zone can serve",
        Eligibility::Trial => "trials: single requests that can be sent again",
    };
    let answered = match facts.last_response {
        Some(at) => format!("last answered well {} ago", page.elapsed_text(at)),
        None => "never answered yet".to_owned(),
    };
    let share = percent_text(facts.share);
    vec![
        format!("{share} of the pool's, {weight}; gets {gets}"),
        format!("{} in flight, {answered}", facts.in_flight),
    ]
}

fn verdict_lines(facts: &EndpointFacts, page: &ExplainPage) -> Vec<String> {
    let row = match facts.streak {
        ProbeStreak::Strikes { count, needed } => format!("{count} of {needed} strikes in a row"),
        ProbeStreak::Passes { count, needed } => format!("{count} of {needed} passes in a row"),
    };
    let flaps = match facts.hold_down.flaps {
        few if few < 0.05 => "no verdicts of late".to_owned(),
        count => format!("{count:.1} verdicts of late"),
    };
    let mut lines = vec![format!("{row}; {flaps}")];
    if let Some(until) = facts.hold_down.until {
        lines.push(format!(
            "held down for {} more, however often it passes",
            page.remaining_text(until)
        ));
    }
    match facts.ejection_trial {
        None => {}
        Some(EjectionTrial::Held { until }) => {
            lines.push(format!("held down for {} more, then on trial", page.remaining_text(until)));
        }
        Some(EjectionTrial::Running {
            consecutive_successes,
            needed,
            gap,
            trials_taken,
            timeout_at,
        }) => {
            lines.push(format!(
                "on trial: {consecutive_successes} of {needed} answered well in a row, at most one every {}; \
                 {trials_taken} taken so far",
                duration_text(gap)
            ));
            lines.push(format!(
                "without a trial request it serves again in {}",
                page.remaining_text(timeout_at)
            ));
        }
    }
    lines
}

/// One row of the table of probes.
fn probe_row(probe: &ProbeFacts, page: &ExplainPage) -> [String; 3] {
    let result = match probe.outcome {
        ProbeOutcome::Pass { latency } => format!("pass in {}", duration_text(latency)),
        ProbeOutcome::Degraded { latency } => {
            format!("pass in {}, degraded", duration_text(latency))
        }
        ProbeOutcome::Fail(failure) => failure.to_string(),
        ProbeOutcome::Inconclusive => "void: this process lacked resources".to_owned(),
    };
    let name = format!("#{} {}", probe.index, probe.protocol.unwrap_or("gone"));
    let watch = if probe.role == ProbeRole::Watch { " (decides nothing)" } else { "" };
    [ago_text(probe.started, page), name, format!("{result}{watch}")]
}

fn ago_text(at: Instant, page: &ExplainPage) -> String {
    format!("{} ago", page.elapsed_text(at))
}

fn next_probe_text(facts: &EndpointFacts, page: &ExplainPage) -> String {
    let next = match facts.next_probe {
        _ if facts.is_waiting_for_budget => "due, but the budget of probes is used up".to_owned(),
        None => "when the running one has ended".to_owned(),
        Some(at) => format!("in {}", page.remaining_text(at)),
    };
    let reason = match facts.cadence {
        Cadence::New => "nothing is known yet",
        Cadence::Steady => "up",
        Cadence::Vouched => "up, and traffic succeeds",
        Cadence::Doubted => "up, but requests fail",
        Cadence::Suspect => "suspect",
        Cadence::Returning => "returning",
        Cadence::Down => "down",
        Cadence::Panic => "down, and the pool is in panic",
    };
    format!("{next}; every {}: {reason}", duration_text(facts.period))
}

fn detection_window_text(facts: &EndpointFacts) -> String {
    let (refused, silent) =
        (duration_text(facts.refused_within), duration_text(facts.silent_within));
    format!("when up, found down within {refused} if it refuses, {silent} if it is silent")
}

fn outlier_text(facts: &EndpointFacts) -> String {
    let failing = match facts.outlier_score.failure_ratio {
        Some(share) => format!("{} of its requests failed of late", percent_text(share)),
        None => "no requests of late".to_owned(),
    };
    format!(
        "score {:.1}: doubted above {SUSPECT_SCORE}, down above {VERDICT_SCORE}, cleared below {CLEAR_SCORE}; {failing}",
        facts.outlier_score.score
    )
}

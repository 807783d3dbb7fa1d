//! Explanations as JSON. Field names are stable and end in their unit. Each point in time comes
//! with its distance from now: `…ago_ms` and `for_ms` before, `…in_ms` and `left_ms` after.

use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use crate::app::control::orders::OrderJson;
use crate::app::ops::api::{PoolApiJson, WallClock, probe_outcome_text};
use crate::app::ops::event_log::millis;
use crate::app::ops::explain::NameLookup;
use crate::logic::director::{
    EjectionTrial, EndpointFacts, EvictionBudget, EvidenceRecord, EvidenceSource, Explanation,
    HoldDown, ProbeFacts, ProbeStreak, RegionFacts, ZoneFacts, ZoneMemberStatus, ZoneStatus,
    ZoneVerdict,
};
use crate::logic::health::endpoint_health::Health;
use crate::logic::health::failure_ratio::{CLEAR_SCORE, SUSPECT_SCORE, VERDICT_SCORE};
use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::incident::IncidentSubject;
use crate::logic::probing::probe::ProbeRole;

use super::text::failure_and_source;

/// The answer of `/api/v1/explain`: everything named `of`, as of `now`.
pub fn render(
    (of, explanations): (&str, &[Explanation]),
    names: &NameLookup<'_>,
    clock: &WallClock,
    now: Instant,
) -> Value {
    let at = RenderMoment { clock, now };
    let one = |explanation: &Explanation| match explanation {
        Explanation::Endpoint(facts) => {
            let mut json = endpoint_json(facts, &at);
            let IncidentSubject { pool, address, .. } = &*facts.subject;
            json["found_by"] = names(pool, *address).into();
            json
        }
        Explanation::Zone(facts) => zone_json(facts, &at),
        Explanation::Region(facts) => region_json(facts, &at),
    };
    let explanations: Vec<Value> = explanations.iter().map(one).collect();
    json!({ "of": of, "explanations": explanations })
}

/// The time of the page, in both clocks.
struct RenderMoment<'a> {
    clock: &'a WallClock,
    now: Instant,
}

impl RenderMoment<'_> {
    fn time_text(&self, at: Instant) -> String {
        self.clock.to_rfc3339(at)
    }

    fn elapsed_ms(&self, at: Instant) -> f64 {
        millis(self.now.saturating_duration_since(at))
    }

    fn remaining_ms(&self, at: Instant) -> f64 {
        millis(at.saturating_duration_since(self.now))
    }
}

/// One zone of one pool, in `/api/v1/zones` and in every explanation.
#[derive(Debug, Serialize)]
pub struct ZoneExplanationJson {
    pool: String,
    zone: String,
    state: &'static str,
    reason: Option<String>,
    source: Option<&'static str>,
    since: Option<String>,
    for_ms: Option<f64>,
    held_for_ms: Option<f64>,
    endpoints: Value,
    quorum: Option<Value>,
    ready: u32,
    ready_needed: u32,
    verdicts_of_late: f32,
    ramp_share: f64,
    share: f64,
    evict: Value,
}

impl ZoneExplanationJson {
    /// The state of one zone as of `now`.
    pub fn new(zone: &ZoneStatus, clock: &WallClock, now: Instant) -> Self {
        let at = RenderMoment { clock, now };
        let down = match zone.verdict {
            ZoneVerdict::Up => None,
            ZoneVerdict::Down { failure, source, since, held_until } => {
                Some((failure, source, since, held_until))
            }
        };
        let quorum = zone.quorum.map(|quorum| {
            json!({
                "struck": quorum.struck_endpoints,
                "needed": quorum.needed,
                "window_ms": millis(quorum.window),
            })
        });
        let counts = zone.counts;
        Self {
            pool: zone.pool.to_string(),
            zone: zone.place.to_string(),
            state: if down.is_some() { "down" } else { "up" },
            reason: down.map(|(failure, ..)| failure.to_string()),
            source: down.map(|(_, source, ..)| source.as_str()),
            since: down.map(|(_, _, since, _)| at.time_text(since)),
            for_ms: down.map(|(_, _, since, _)| at.elapsed_ms(since)),
            held_for_ms: down.map(|(.., held_until)| at.remaining_ms(held_until)),
            endpoints: json!({
                "all": counts.all,
                "up": counts.up,
                "suspect": counts.suspect,
                "down": counts.down,
                "returning": counts.returning,
                "unknown": counts.unknown,
            }),
            quorum,
            ready: zone.ready,
            ready_needed: zone.ready_needed,
            verdicts_of_late: zone.flaps,
            ramp_share: share_from_thousandths(zone.ramp),
            share: zone.share,
            evict: budget_json(zone.evict),
        }
    }
}

fn share_from_thousandths(thousandths: u32) -> f64 {
    f64::from(thousandths) / f64::from(FULL_SHARE_PERMILLE)
}

fn budget_json(budget: EvictionBudget) -> Value {
    json!({ "down": budget.used, "allowed": budget.allowed })
}

fn endpoint_json(facts: &EndpointFacts, at: &RenderMoment<'_>) -> Value {
    let why = failure_and_source(facts);
    let subject = &facts.subject;
    json!({
        "kind": "endpoint",
        "pool": *subject.pool,
        "zone": subject.locality.to_string(),
        "address": subject.address.to_string(),
        "state": facts.health.as_str(),
        "standing": facts.eligibility.as_str(),
        "reason": why.map(|(failure, _)| failure.to_string()),
        "source": why.and_then(|(_, source)| source).map(EvidenceSource::as_str),
        "since": at.time_text(facts.since),
        "for_ms": at.elapsed_ms(facts.since),
        "withheld": facts.withheld.map(|why| why.as_str()),
        "orders": facts.orders.iter().map(|one| OrderJson::new(one, at.clock, at.now)).collect::<Vec<_>>(),
        "evidence": facts.evidence.iter().map(|one| evidence_json(one, at)).collect::<Vec<_>>(),
        "probes": facts.probes.iter().map(|one| probe_json(one, at)).collect::<Vec<_>>(),
        "next_probe": {
            "in_ms": facts.next_probe.map(|due| at.remaining_ms(due)),
            "period_ms": millis(facts.period),
            "why": facts.cadence.as_str(),
            "waits_for_budget": facts.is_waiting_for_budget,
        },
        "row": evidence_count_json(facts.streak),
        "hold_down": hold_down_json(facts.hold_down, at),
        "trial": facts.ejection_trial.map(|one| trial_json(one, at)),
        "doubt": {
            "score": facts.outlier_score.score,
            "doubted_above": SUSPECT_SCORE,
            "down_above": VERDICT_SCORE,
            "cleared_below": CLEAR_SCORE,
            "failing_share": facts.outlier_score.failure_ratio,
        },
        "traffic": {
            "share": facts.share,
            "weight": facts.weight,
            "weight_now": facts.weight_now,
            "ramp_share": share_from_thousandths(facts.ramp),
            "degraded": facts.is_degraded,
            "in_flight": facts.in_flight,
            "last_answer": facts.last_response.map(|answer| at.time_text(answer)),
            "last_answer_ago_ms": facts.last_response.map(|answer| at.elapsed_ms(answer)),
        },
        "detection_window": {
            "refused_ms": millis(facts.refused_within),
            "silent_ms": millis(facts.silent_within),
        },
        "zone_state": ZoneExplanationJson::new(&facts.zone, at.clock, at.now),
        "pool_state": PoolApiJson::from(&facts.pool),
    })
}

fn evidence_json(piece: &EvidenceRecord, at: &RenderMoment<'_>) -> Value {
    json!({
        "at": at.time_text(piece.at),
        "ago_ms": at.elapsed_ms(piece.at),
        "source": piece.source.as_str(),
        "reason": piece.failure.to_string(),
    })
}

fn probe_json(probe: &ProbeFacts, at: &RenderMoment<'_>) -> Value {
    json!({
        "probe": probe.index,
        "protocol": probe.protocol,
        "decides": probe.role == ProbeRole::Gate,
        "started": at.time_text(probe.started),
        "started_ago_ms": at.elapsed_ms(probe.started),
        "result": probe_outcome_text(probe.outcome),
        "latency_ms": probe.outcome.latency().map(millis),
    })
}

fn evidence_count_json(row: ProbeStreak) -> Value {
    match row {
        ProbeStreak::Strikes { count, needed } => json!({ "strikes": count, "needed": needed }),
        ProbeStreak::Passes { count, needed } => json!({ "passes": count, "needed": needed }),
    }
}

fn hold_down_json(hold: HoldDown, at: &RenderMoment<'_>) -> Value {
    json!({
        "until": hold.until.map(|until| at.time_text(until)),
        "left_ms": hold.until.map(|until| at.remaining_ms(until)),
        "verdicts_of_late": hold.flaps,
    })
}

fn trial_json(trial: EjectionTrial, at: &RenderMoment<'_>) -> Value {
    match trial {
        EjectionTrial::Held { until } => json!({
            "stage": "held",
            "until": at.time_text(until),
            "left_ms": at.remaining_ms(until),
        }),
        EjectionTrial::Running { consecutive_successes, needed, gap, trials_taken, timeout_at } => {
            json!({
                "stage": "running",
                "good_in_a_row": consecutive_successes,
                "needed": needed,
                "gap_ms": millis(gap),
                "taken": trials_taken,
                "patience_left_ms": at.remaining_ms(timeout_at),
            })
        }
    }
}

fn zone_json(facts: &ZoneFacts, at: &RenderMoment<'_>) -> Value {
    json!({
        "kind": "zone",
        "pool": *facts.pool.name,
        "zone": facts.zone.place.to_string(),
        "zone_state": ZoneExplanationJson::new(&facts.zone, at.clock, at.now),
        "endpoints": facts.endpoints.iter().map(|one| member_json(one, at)).collect::<Vec<_>>(),
        "more": facts.omitted,
        "pool_state": PoolApiJson::from(&facts.pool),
    })
}

fn member_json(member: &ZoneMemberStatus, at: &RenderMoment<'_>) -> Value {
    let failure = match member.health {
        Health::Suspect { failure, .. }
        | Health::Down { failure }
        | Health::Returning { failure, .. } => Some(failure.to_string()),
        Health::Unknown { .. } | Health::Up => None,
    };
    json!({
        "address": member.address.to_string(),
        "state": member.health.as_str(),
        "standing": member.eligibility.as_str(),
        "reason": failure,
        "source": member.cause.map(|cause| cause.source.as_str()),
        "since": at.time_text(member.since),
        "for_ms": at.elapsed_ms(member.since),
        "share": member.share,
    })
}

fn region_json(facts: &RegionFacts, at: &RenderMoment<'_>) -> Value {
    let zones: Vec<ZoneExplanationJson> =
        facts.zones.iter().map(|zone| ZoneExplanationJson::new(zone, at.clock, at.now)).collect();
    json!({
        "kind": "region",
        "pool": *facts.pool.name,
        "region": *facts.region,
        "zones_down": facts.down,
        "zones_needed": facts.needed,
        "share": facts.zones.iter().map(|zone| zone.share).sum::<f64>(),
        "zones": zones,
        "pool_state": PoolApiJson::from(&facts.pool),
    })
}

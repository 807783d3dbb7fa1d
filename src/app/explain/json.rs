//! Explanations for programs: stable names, units in them. Times of day are text, and beside them
//! stands how long ago that was (`…ago_ms`, `for_ms`) or how long it takes until then.

use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use crate::app::api::{Clock, PoolJson, outcome_text};
use crate::app::explain::Names;
use crate::app::observe::millis;
use crate::app::orders::OrderJson;
use crate::logic::director::{
    Budget, EndpointFacts, Explanation, Hold, Member, Piece, ProbeFacts, RegionFacts, Row, Source,
    Trial, ZoneFacts, ZoneStatus, ZoneVerdict,
};
use crate::logic::health::Health;
use crate::logic::incident::Subject;
use crate::logic::probe::Role;
use crate::logic::ratio::{CLEARED, DOUBT, GUILTY};
use crate::logic::recovery::FULL;

use super::text::reason;

/// `/api/v1/explain`: everything that is called `of`, as of `now`.
#[must_use]
pub fn render(
    (of, explanations): (&str, &[Explanation]),
    names: &Names<'_>,
    clock: &Clock,
    now: Instant,
) -> Value {
    let at = At { clock, now };
    let one = |explanation: &Explanation| match explanation {
        Explanation::Endpoint(facts) => {
            let mut told = endpoint(facts, &at);
            let Subject { pool, address, .. } = &*facts.subject;
            told["found_by"] = names(pool, *address).into();
            told
        }
        Explanation::Zone(facts) => zone(facts, &at),
        Explanation::Region(facts) => region(facts, &at),
    };
    let explanations: Vec<Value> = explanations.iter().map(one).collect();
    json!({ "of": of, "explanations": explanations })
}

/// The moment that everything is told as of.
struct At<'a> {
    clock: &'a Clock,
    now: Instant,
}

impl At<'_> {
    fn text(&self, at: Instant) -> String {
        self.clock.text(at)
    }

    fn ago_ms(&self, at: Instant) -> f64 {
        millis(self.now.saturating_duration_since(at))
    }

    fn in_ms(&self, at: Instant) -> f64 {
        millis(at.saturating_duration_since(self.now))
    }
}

/// One zone of one pool, as `/api/v1/zones` and every explanation has it.
#[derive(Debug, Serialize)]
pub struct ZoneJson {
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

impl ZoneJson {
    /// The status of one zone, as of `now`.
    #[must_use]
    pub fn new(zone: &ZoneStatus, clock: &Clock, now: Instant) -> Self {
        let at = At { clock, now };
        let down = match zone.verdict {
            ZoneVerdict::Up => None,
            ZoneVerdict::Down { failure, source, since, held_until } => {
                Some((failure, source, since, held_until))
            }
        };
        let quorum = zone.quorum.map(|quorum| {
            json!({
                "struck": quorum.struck,
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
            since: down.map(|(_, _, since, _)| at.text(since)),
            for_ms: down.map(|(_, _, since, _)| at.ago_ms(since)),
            held_for_ms: down.map(|(.., held_until)| at.in_ms(held_until)),
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
            ramp_share: share_of(zone.ramp),
            share: zone.share,
            evict: budget(zone.evict),
        }
    }
}

fn share_of(thousandths: u32) -> f64 {
    f64::from(thousandths) / f64::from(FULL)
}

fn budget(budget: Budget) -> Value {
    json!({ "down": budget.used, "allowed": budget.allowed })
}

fn endpoint(facts: &EndpointFacts, at: &At<'_>) -> Value {
    let why = reason(facts);
    let subject = &facts.subject;
    json!({
        "kind": "endpoint",
        "pool": *subject.pool,
        "zone": subject.place.to_string(),
        "address": subject.address.to_string(),
        "state": facts.health.as_str(),
        "standing": facts.standing.as_str(),
        "reason": why.map(|(failure, _)| failure.to_string()),
        "source": why.and_then(|(_, source)| source).map(Source::as_str),
        "since": at.text(facts.since),
        "for_ms": at.ago_ms(facts.since),
        "withheld": facts.withheld.map(|why| why.as_str()),
        "orders": facts.orders.iter().map(|one| OrderJson::new(one, at.clock, at.now)).collect::<Vec<_>>(),
        "evidence": facts.evidence.iter().map(|one| piece(one, at)).collect::<Vec<_>>(),
        "probes": facts.probes.iter().map(|one| probe(one, at)).collect::<Vec<_>>(),
        "next_probe": {
            "in_ms": facts.next_probe.map(|due| at.in_ms(due)),
            "period_ms": millis(facts.period),
            "why": facts.cadence.as_str(),
            "waits_for_budget": facts.waits_for_budget,
        },
        "row": row(facts.row),
        "hold_down": hold(facts.hold, at),
        "trial": facts.trial.map(|one| trial(one, at)),
        "doubt": {
            "score": facts.doubt.score,
            "doubted_above": DOUBT,
            "down_above": GUILTY,
            "cleared_below": CLEARED,
            "failing_share": facts.doubt.failing,
        },
        "traffic": {
            "share": facts.share,
            "weight": facts.weight,
            "weight_now": facts.weight_now,
            "ramp_share": share_of(facts.ramp),
            "degraded": facts.is_degraded,
            "in_flight": facts.in_flight,
            "last_answer": facts.last_answer.map(|answer| at.text(answer)),
            "last_answer_ago_ms": facts.last_answer.map(|answer| at.ago_ms(answer)),
        },
        "detection_window": {
            "refused_ms": millis(facts.refused_within),
            "silent_ms": millis(facts.silent_within),
        },
        "zone_state": ZoneJson::new(&facts.zone, at.clock, at.now),
        "pool_state": PoolJson::from(&facts.pool),
    })
}

fn piece(piece: &Piece, at: &At<'_>) -> Value {
    json!({
        "at": at.text(piece.at),
        "ago_ms": at.ago_ms(piece.at),
        "source": piece.source.as_str(),
        "reason": piece.failure.to_string(),
    })
}

fn probe(probe: &ProbeFacts, at: &At<'_>) -> Value {
    json!({
        "probe": probe.index,
        "protocol": probe.protocol,
        "decides": probe.role == Role::Gate,
        "started": at.text(probe.started),
        "started_ago_ms": at.ago_ms(probe.started),
        "result": outcome_text(probe.outcome),
        "latency_ms": probe.outcome.latency().map(millis),
    })
}

fn row(row: Row) -> Value {
    match row {
        Row::Strikes { count, needed } => json!({ "strikes": count, "needed": needed }),
        Row::Passes { count, needed } => json!({ "passes": count, "needed": needed }),
    }
}

fn hold(hold: Hold, at: &At<'_>) -> Value {
    json!({
        "until": hold.until.map(|until| at.text(until)),
        "left_ms": hold.until.map(|until| at.in_ms(until)),
        "verdicts_of_late": hold.flaps,
    })
}

fn trial(trial: Trial, at: &At<'_>) -> Value {
    match trial {
        Trial::Held { until } => json!({
            "stage": "held",
            "until": at.text(until),
            "left_ms": at.in_ms(until),
        }),
        Trial::Running { good_in_a_row, needed, gap, taken, patience_until } => json!({
            "stage": "running",
            "good_in_a_row": good_in_a_row,
            "needed": needed,
            "gap_ms": millis(gap),
            "taken": taken,
            "patience_left_ms": at.in_ms(patience_until),
        }),
    }
}

fn zone(facts: &ZoneFacts, at: &At<'_>) -> Value {
    json!({
        "kind": "zone",
        "pool": *facts.pool.name,
        "zone": facts.zone.place.to_string(),
        "zone_state": ZoneJson::new(&facts.zone, at.clock, at.now),
        "endpoints": facts.endpoints.iter().map(|one| member(one, at)).collect::<Vec<_>>(),
        "more": facts.more,
        "pool_state": PoolJson::from(&facts.pool),
    })
}

fn member(member: &Member, at: &At<'_>) -> Value {
    let failure = match member.health {
        Health::Suspect { failure, .. }
        | Health::Down { failure }
        | Health::Returning { failure, .. } => Some(failure.to_string()),
        Health::Unknown { .. } | Health::Up => None,
    };
    json!({
        "address": member.address.to_string(),
        "state": member.health.as_str(),
        "standing": member.standing.as_str(),
        "reason": failure,
        "source": member.cause.map(|cause| cause.source.as_str()),
        "since": at.text(member.since),
        "for_ms": at.ago_ms(member.since),
        "share": member.share,
    })
}

fn region(facts: &RegionFacts, at: &At<'_>) -> Value {
    let zones: Vec<ZoneJson> =
        facts.zones.iter().map(|zone| ZoneJson::new(zone, at.clock, at.now)).collect();
    json!({
        "kind": "region",
        "pool": *facts.pool.name,
        "region": *facts.region,
        "zones_down": facts.down,
        "zones_needed": facts.needed,
        "share": facts.zones.iter().map(|zone| zone.share).sum::<f64>(),
        "zones": zones,
        "pool_state": PoolJson::from(&facts.pool),
    })
}

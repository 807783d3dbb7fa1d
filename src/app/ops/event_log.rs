//! Log lines and metrics of events: verdicts, incidents, probes, lookups, reloads and upgrades.

use std::net::{IpAddr, SocketAddr};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::metrics::{Collect, FamilyWriter, families};
use super::repeated_lines::RepeatedLines;
use crate::logic::director::{Divergence, Event, OrderChange, WithheldReason};
use crate::logic::discovery::{DnsRecordType, LookupAnswer, LookupQuestion};
use crate::logic::health::endpoint_health::{Health, HealthTransition};
use crate::logic::incident::{Incident, IncidentSubject};
use crate::logic::model::id::Locality;
use crate::logic::model::outcome::{Failure, ProbeOutcome};
use crate::logic::orders::{OperatorOrder, OrderAction};

static DROPPED_LINES: OnceLock<tracing_appender::non_blocking::ErrorCounter> = OnceLock::new();

/// Sets the counter of log lines that the log's writer dropped. Only the first call has an effect.
pub fn set_dropped_line_counter(counter: tracing_appender::non_blocking::ErrorCounter) {
    let _ = DROPPED_LINES.set(counter);
}

/// The state of the process's log at scrape.
pub struct LogMetrics;

impl Collect for LogMetrics {
    fn collect(&self, out: &mut FamilyWriter) {
        let dropped = DROPPED_LINES.get().map_or(0, |counter| counter.dropped_lines());
        out.counter(families::LOG_LINES_DROPPED, [], dropped as u64);
    }
}

/// Values of the labels `pool`, `zone` and `endpoint`.
fn endpoint_labels(subject: &IncidentSubject) -> [String; 3] {
    [subject.pool.to_string(), subject.locality.to_string(), subject.address.to_string()]
}

/// Logs and counts one event.
pub fn record_event(event: &Event) {
    match event {
        Event::HealthChanged { subject, change, health } => {
            record_health_change(subject, *change, *health);
        }
        Event::HealthImported { subject, health } => log_inherited(subject, *health),
        Event::IncidentBegan(incident) => record_incident_began(incident),
        Event::IncidentEnded(incident) => record_incident_ended(incident),
        Event::ZoneVerdictChanged { pool, place, verdict } => {
            record_zone_change(pool, place, *verdict);
        }
        Event::VerdictWithheld { subject, failure, reason } => {
            log_withheld(subject, *failure, *reason);
        }
        Event::Divergence(divergence) => log_diverged(divergence),
        Event::ProbingImpaired { is_active } => {
            if *is_active {
                tracing::error!(
                    "blind: probes end without evidence because the process lacks resources"
                );
            } else {
                tracing::warn!("no longer blind: probes end with evidence again");
            }
        }
        Event::RampEnded { pool, place, address } => log_ramp_ended(pool, place, *address),
        Event::RegionOrderChanged { pool, order } => {
            families::REGION_ORDER_CHANGES.with(&[pool]).increment(1);
            tracing::info!(%pool, order = order.join(", "), "order of regions by measured latency changed");
        }
        Event::OrderChanged { order, change } => log_order(order, *change),
        Event::Panic { pool, is_active: true } => {
            families::POOL_PANICS.with(&[pool]).increment(1);
            tracing::error!(%pool, "panic: nothing in the pool is healthy; traffic goes to all of it");
        }
        Event::Panic { pool, is_active: false } => tracing::warn!(%pool, "panic ended"),
    }
}

fn log_order(order: &OperatorOrder, change: OrderChange) {
    families::ORDER_CHANGES.with(&[order.action.as_str(), change.as_str()]).increment(1);
    let by = order.author.as_deref().unwrap_or(order.source.as_str());
    let (id, change) = (order.id, change.as_str());
    let note = order.note.as_deref().unwrap_or_default();
    match order.action {
        OrderAction::Drain { fade_duration: over, deadline } => {
            tracing::warn!(id, by, note, ?over, ?deadline, "order {change}: {order}");
        }
        OrderAction::Weight(_) | OrderAction::Serve => {
            tracing::warn!(id, by, note, "order {change}: {order}");
        }
    }
}

fn record_zone_change(pool: &str, place: &Locality, verdict: Option<(Failure, u32)>) {
    match verdict {
        Some((failure, witnesses)) => {
            families::ZONE_VERDICTS.with(&[pool, &place.to_string()]).increment(1);
            tracing::warn!(%pool, zone = %place, reason = %failure, witnesses, "zone down");
        }
        None => tracing::warn!(%pool, zone = %place, "zone up"),
    }
}

fn log_ramp_ended(pool: &str, place: &Locality, address: Option<SocketAddr>) {
    match address {
        Some(endpoint) => {
            tracing::debug!(%pool, zone = %place, %endpoint, "ramp ended: endpoint has its full share");
        }
        None => tracing::info!(%pool, zone = %place, "ramp ended: zone has its full share"),
    }
}

fn log_withheld(subject: &IncidentSubject, failure: Failure, reason: WithheldReason) {
    let why = reason.as_str();
    families::VERDICTS_WITHHELD.with(&[&*subject.pool, why]).increment(1);
    tracing::warn!(
        pool = %subject.pool,
        zone = %subject.locality,
        endpoint = %subject.address,
        reason = %failure,
        why,
        "verdict withheld: the endpoint stays in service"
    );
}

fn log_diverged(divergence: &Divergence) {
    match divergence {
        Divergence::ProbesFail { pool, is_active } => {
            if *is_active {
                tracing::error!(%pool, "divergence: probes fail while traffic succeeds; probes are ignored");
            } else {
                tracing::warn!(%pool, "divergence ended");
            }
        }
        Divergence::TrafficFails { subject, failure } => {
            families::DIVERGENCES.with(&[&subject.pool]).increment(1);
            tracing::warn!(
                pool = %subject.pool,
                zone = %subject.locality,
                endpoint = %subject.address,
                reason = %failure,
                "divergence: traffic fails while probes pass; traffic decides"
            );
        }
    }
}

fn log_inherited(subject: &IncidentSubject, health: Health) {
    let serving = if health.can_serve(false) { 1.0 } else { 0.0 };
    families::ENDPOINT_UP.with(&endpoint_labels(subject)).set(serving);
    let (pool, zone, endpoint) = (&subject.pool, &subject.locality, subject.address);
    match health {
        Health::Down { failure } | Health::Returning { failure, .. } => {
            tracing::info!(%pool, %zone, %endpoint, reason = %failure, "endpoint down, inherited from the predecessor");
        }
        _ => {
            let state = health.as_str();
            tracing::debug!(%pool, %zone, %endpoint, state, "health inherited from the predecessor");
        }
    }
}

fn record_health_change(subject: &IncidentSubject, change: HealthTransition, health: Health) {
    let serving = if health.can_serve(false) { 1.0 } else { 0.0 };
    families::ENDPOINT_UP.with(&endpoint_labels(subject)).set(serving);
    let (pool, zone, endpoint) = (&subject.pool, &subject.locality, subject.address);
    match (change, health) {
        (HealthTransition::WentDown, Health::Down { failure }) => {
            tracing::warn!(%pool, %zone, %endpoint, reason = %failure, "endpoint down");
        }
        (HealthTransition::Suspected, Health::Suspect { failure, .. }) => {
            if suspect_lines().admit((subject.clone(), change), Instant::now()) {
                tracing::info!(%pool, %zone, %endpoint, reason = %failure, "endpoint suspect");
            } else {
                tracing::debug!(%pool, %zone, %endpoint, reason = %failure, "endpoint suspect");
            }
        }
        (HealthTransition::Restored | HealthTransition::Started, _) => {
            tracing::info!(%pool, %zone, %endpoint, "endpoint up");
        }
        (HealthTransition::Cleared, _) => {
            if suspect_lines().admit((subject.clone(), change), Instant::now()) {
                tracing::info!(%pool, %zone, %endpoint, "endpoint no longer suspect");
            } else {
                tracing::debug!(%pool, %zone, %endpoint, "endpoint no longer suspect");
            }
        }
        _ => tracing::debug!(%pool, %zone, %endpoint, state = health.as_str(), "health changed"),
    }
}

/// Log lines about suspects, by endpoint and transition.
type SuspectLines = RepeatedLines<(IncidentSubject, HealthTransition)>;

/// The log lines about suspects. An endpoint that closes many connections becomes a suspect
/// repeatedly.
fn suspect_lines() -> MutexGuard<'static, SuspectLines> {
    static LINES: LazyLock<Mutex<SuspectLines>> = LazyLock::new(Mutex::default);
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Logs the counts of joined lines whose join time is over.
pub fn log_repeated_lines(now: Instant) {
    for ((subject, change), count) in suspect_lines().take_due(now) {
        if change == HealthTransition::Suspected {
            let (pool, zone, endpoint) = (&subject.pool, &subject.locality, subject.address);
            tracing::info!(%pool, %zone, %endpoint, count, "endpoint suspect again");
        }
    }
}

/// Values of the labels `pool`, `zone` and `class`.
fn incident_labels(incident: &Incident) -> [String; 3] {
    let IncidentSubject { pool, locality, .. } = &*incident.subject;
    [pool.to_string(), locality.to_string(), incident.failure.class().to_string()]
}

fn record_incident_began(incident: &Incident) {
    let labels = incident_labels(incident);
    families::INCIDENTS.with(&labels).increment(1);
    if let Some(detection) = incident.timeline.detection_time() {
        families::DETECTION.with(&labels).record(detection);
    }
}

fn record_incident_ended(incident: &Incident) {
    let labels = incident_labels(incident);
    families::GAP.with(&labels).record(incident.timeline.failover_gap());
    let [pool, zone, _] = &labels;
    let counts = incident.counts;
    for (outcome, count) in
        [("failed", counts.failed), ("rescued", counts.rescued), ("late", counts.late)]
    {
        families::INCIDENT_REQUESTS.with(&[pool, zone, outcome]).increment(count);
    }
    tracing::warn!(
        pool = %incident.subject.pool,
        zone = %incident.subject.locality,
        endpoint = %incident.subject.address,
        class = %incident.failure.class(),
        detection_ms = incident.timeline.detection_time().map(millis),
        gap_ms = millis(incident.timeline.failover_gap()),
        failed = counts.failed,
        rescued = counts.rescued,
        late = counts.late,
        "incident ended"
    );
}

/// Counts one probe of an endpoint of `pool`.
pub fn record_probe(pool: &str, outcome: ProbeOutcome) {
    if let Some(latency) = outcome.latency() {
        families::PROBE_DURATION.with(&[pool]).record(latency);
    }
    let outcome = match outcome {
        ProbeOutcome::Pass { .. } => "pass",
        ProbeOutcome::Degraded { .. } => "degraded",
        ProbeOutcome::Fail(failure) => failure.class().as_str(),
        ProbeOutcome::Inconclusive => "void",
    };
    families::PROBES.with(&[pool, outcome]).increment(1);
}

/// Counts one lookup of a name.
pub fn record_lookup(question: &LookupQuestion, answer: &LookupAnswer, took: Duration) {
    let record = question.record_type.as_str();
    families::DNS_LOOKUP_DURATION.with(&[record]).record(took);
    families::DNS_LOOKUPS.with(&[record, answer.as_str()]).increment(1);
}

/// Logs the first of consecutive lookups with the same result.
pub fn log_first_answer(question: &LookupQuestion, answer: &LookupAnswer) {
    let (name, record, result) = (&question.name, question.record_type.as_str(), answer.as_str());
    match answer {
        LookupAnswer::Failed(_) => {
            tracing::warn!(%name, record, result, "DNS lookup failed; the last answer stays in use");
        }
        // Most hosts have addresses of one family only.
        LookupAnswer::Negative { .. } if question.record_type != DnsRecordType::Aaaa => {
            tracing::warn!(%name, record, result, "DNS lookup found no records");
        }
        LookupAnswer::Found { .. } | LookupAnswer::Negative { .. } => {
            tracing::debug!(%name, record, result, "DNS lookup succeeded");
        }
    }
}

/// Limit of addresses in one log line.
pub const MAX_LOGGED_ADDRESSES: usize = 10;

/// Logs addresses from DNS that `dns.allow` does not permit as endpoints.
pub fn log_refused_addresses(question: &LookupQuestion, addresses: &[IpAddr]) {
    let (name, record) = (&question.name, question.record_type.as_str());
    let shown: Vec<String> =
        addresses.iter().take(MAX_LOGGED_ADDRESSES).map(ToString::to_string).collect();
    tracing::warn!(
        %name,
        record,
        addresses = shown.join(" "),
        count = addresses.len(),
        "DNS addresses refused: loopback and link-local ones need `dns.allow`"
    );
}

/// Records the delay of the control thread's wake-up.
pub fn record_lag(lag: Duration) {
    families::CONTROL_LAG.handle().set(lag.as_secs_f64());
}

/// Records the version of a published snapshot.
pub fn record_snapshot(version: u64) {
    families::SNAPSHOT_VERSION.handle().set(version as f64);
}

/// Counts a reload of the configuration.
pub fn record_reload(ok: bool) {
    let result = if ok { "ok" } else { "refused" };
    families::CONFIG_RELOADS.with(&[result]).increment(1);
    families::CONFIG_LAST_RELOAD_OK.handle().set(if ok { 1.0 } else { 0.0 });
}

/// Counts an upgrade: this process took over, or another one failed to take over from it.
pub fn record_upgrade(ok: bool) {
    let result = if ok { "ok" } else { "failed" };
    families::UPGRADES.with(&[result]).increment(1);
    families::LAST_UPGRADE_OK.handle().set(if ok { 1.0 } else { 0.0 });
}

/// A duration in milliseconds, with a fraction.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

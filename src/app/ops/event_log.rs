//! What the operator is told: logs and metrics of verdicts, incidents, probes and reloads.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::logic::director::{Divergence, Event, OrderChange, WithheldReason};
use crate::logic::discovery::{DnsRecordType, LookupAnswer, LookupQuestion};
use crate::logic::health::endpoint_health::{Health, HealthTransition};
use crate::logic::incident::{Incident, IncidentSubject};
use crate::logic::model::id::Locality;
use crate::logic::model::outcome::{Failure, ProbeOutcome};
use crate::logic::orders::operator_orders::{OperatorOrder, OrderAction};

/// Upper bounds of the buckets for detection and gap, in seconds.
const WINDOW_BUCKETS_SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// The process's recorder; the first call installs it. `None` if another one was installed before.
pub fn recorder() -> Option<&'static PrometheusHandle> {
    let install = || {
        let seconds = Matcher::Suffix("_seconds".to_owned());
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(seconds, &WINDOW_BUCKETS_SECONDS)
            .ok()?;
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        Some(handle)
    };
    RECORDER.get_or_init(install).as_ref()
}

static LOST_LINES: OnceLock<tracing_appender::non_blocking::ErrorCounter> = OnceLock::new();

/// Has lines of the log that nobody took counted by [`lost_lines`].
pub fn count_lost_lines(counter: tracing_appender::non_blocking::ErrorCounter) {
    let _ = LOST_LINES.set(counter);
}

/// Lines of the log that nobody took.
pub fn lost_lines() -> usize {
    LOST_LINES.get().map_or(0, tracing_appender::non_blocking::ErrorCounter::dropped_lines)
}

fn labels(subject: &IncidentSubject) -> [(&'static str, String); 3] {
    [
        ("pool", subject.pool.to_string()),
        ("zone", subject.locality.to_string()),
        ("endpoint", subject.address.to_string()),
    ]
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
        Event::VerdictWithheld { subject, failure, reason: why } => {
            log_withheld(subject, *failure, *why);
        }
        Event::Divergence(divergence) => log_diverged(divergence),
        Event::ProbingImpaired { is_active: on } => {
            if *on {
                tracing::error!("blind: probes end without evidence, this process lacks resources");
            } else {
                tracing::warn!("probes bring evidence again");
            }
        }
        Event::RampEnded { pool, place, address } => log_ramp_ended(pool, place, *address),
        Event::RegionOrderChanged { pool, order } => {
            counter!("gapless_region_order_changes_total", "pool" => pool.to_string()).increment(1);
            tracing::info!(%pool, order = order.join(", "), "regions by how soon they answer");
        }
        Event::OrderChanged { order, change: fate } => log_order(order, *fate),
        Event::Panic { pool, is_active: true } => {
            counter!("gapless_pool_panics_total", "pool" => pool.to_string()).increment(1);
            tracing::error!(%pool, "panic: nothing in the pool is healthy; traffic goes to all of it");
        }
        Event::Panic { pool, is_active: false } => tracing::warn!(%pool, "panic is over"),
    }
}

fn log_order(order: &OperatorOrder, change: OrderChange) {
    let labels = [("act", order.action.as_str()), ("fate", change.as_str())];
    counter!("gapless_orders_total", &labels).increment(1);
    let (id, by, change) = (order.id, order.source.as_str(), change.as_str());
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
    let labels = [("pool", pool.to_owned()), ("zone", place.to_string())];
    match verdict {
        Some((failure, witnesses)) => {
            counter!("gapless_zone_verdicts_total", &labels).increment(1);
            tracing::warn!(%pool, zone = %place, reason = %failure, witnesses, "zone down");
        }
        None => tracing::warn!(%pool, zone = %place, "zone up"),
    }
}

fn log_ramp_ended(pool: &str, place: &Locality, address: Option<SocketAddr>) {
    match address {
        Some(endpoint) => tracing::debug!(%pool, zone = %place, %endpoint, "whole share again"),
        None => tracing::info!(%pool, zone = %place, "zone has its whole share again"),
    }
}

fn log_withheld(subject: &IncidentSubject, failure: Failure, why: WithheldReason) {
    let word = why.as_str();
    let labels = [("pool", subject.pool.to_string()), ("why", word.to_owned())];
    counter!("gapless_verdicts_withheld_total", &labels).increment(1);
    tracing::warn!(
        pool = %subject.pool,
        zone = %subject.locality,
        endpoint = %subject.address,
        reason = %failure,
        why = word,
        "verdict withheld: the endpoint stays in service"
    );
}

fn log_diverged(divergence: &Divergence) {
    match divergence {
        Divergence::ProbesFail { pool, is_active: on } => {
            if *on {
                tracing::error!(%pool, "divergence: probes fail while traffic succeeds; not obeyed");
            } else {
                tracing::warn!(%pool, "divergence is over");
            }
        }
        Divergence::TrafficFails { subject, failure } => {
            let pool = subject.pool.to_string();
            counter!("gapless_divergences_total", "pool" => pool).increment(1);
            tracing::warn!(
                pool = %subject.pool,
                zone = %subject.locality,
                endpoint = %subject.address,
                reason = %failure,
                "divergence: traffic fails while probes pass; traffic is believed"
            );
        }
    }
}

fn log_inherited(subject: &IncidentSubject, health: Health) {
    let serving = if health.can_serve(false) { 1.0 } else { 0.0 };
    gauge!("gapless_endpoint_up", &labels(subject)).set(serving);
    let (pool, zone, endpoint) = (&subject.pool, &subject.locality, subject.address);
    match health {
        Health::Down { failure } | Health::Returning { failure, .. } => {
            tracing::info!(%pool, %zone, %endpoint, reason = %failure, "inherited: down");
        }
        _ => {
            let state = health.as_str();
            tracing::debug!(%pool, %zone, %endpoint, state, "inherited");
        }
    }
}

fn record_health_change(subject: &IncidentSubject, change: HealthTransition, health: Health) {
    let serving = if health.can_serve(false) { 1.0 } else { 0.0 };
    gauge!("gapless_endpoint_up", &labels(subject)).set(serving);
    let (pool, zone, endpoint) = (&subject.pool, &subject.locality, subject.address);
    match (change, health) {
        (HealthTransition::WentDown, Health::Down { failure }) => {
            tracing::warn!(%pool, %zone, %endpoint, reason = %failure, "down");
        }
        (HealthTransition::Suspected, Health::Suspect { failure, .. }) => {
            tracing::info!(%pool, %zone, %endpoint, reason = %failure, "suspect");
        }
        (HealthTransition::Restored | HealthTransition::Started, _) => {
            tracing::info!(%pool, %zone, %endpoint, "up");
        }
        (HealthTransition::Cleared, _) => {
            tracing::info!(%pool, %zone, %endpoint, "no longer suspect");
        }
        _ => tracing::debug!(%pool, %zone, %endpoint, state = health.as_str(), "health"),
    }
}

fn incident_labels(incident: &Incident) -> [(&'static str, String); 3] {
    [
        ("pool", incident.subject.pool.to_string()),
        ("zone", incident.subject.locality.to_string()),
        ("class", incident.failure.class().to_string()),
    ]
}

fn record_incident_began(incident: &Incident) {
    let labels = incident_labels(incident);
    counter!("gapless_incidents_total", &labels).increment(1);
    if let Some(detection) = incident.timeline.detection_time() {
        histogram!("gapless_detection_seconds", &labels).record(detection);
    }
}

fn record_incident_ended(incident: &Incident) {
    let labels = incident_labels(incident);
    histogram!("gapless_gap_seconds", &labels).record(incident.timeline.failover_gap());
    let [pool, zone, _] = labels;
    let counts = incident.counts;
    for (outcome, count) in
        [("failed", counts.failed), ("rescued", counts.rescued), ("late", counts.late)]
    {
        let labels = [pool.clone(), zone.clone(), ("outcome", outcome.to_owned())];
        counter!("gapless_incident_requests_total", &labels).increment(count);
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
        "incident over"
    );
}

pub fn record_probe(pool: &str, outcome: ProbeOutcome) {
    if let Some(latency) = outcome.latency() {
        histogram!("gapless_probe_duration_seconds", "pool" => pool.to_owned()).record(latency);
    }
    let word = match outcome {
        ProbeOutcome::Pass { .. } => "pass",
        ProbeOutcome::Degraded { .. } => "degraded",
        ProbeOutcome::Fail(failure) => failure.class().as_str(),
        ProbeOutcome::Inconclusive => "void",
    };
    counter!("gapless_probes_total", "pool" => pool.to_owned(), "outcome" => word).increment(1);
}

/// Counts one lookup of a name.
pub fn record_lookup(question: &LookupQuestion, answer: &LookupAnswer, took: Duration) {
    let record = question.record_type.as_str();
    histogram!("gapless_dns_lookup_duration_seconds", "record" => record).record(took);
    counter!("gapless_dns_lookups_total", "record" => record, "result" => answer.as_str())
        .increment(1);
}

/// Logs the first of a row of lookups that end alike.
pub fn log_first_answer(question: &LookupQuestion, answer: &LookupAnswer) {
    let (name, record, result) = (&question.name, question.record_type.as_str(), answer.as_str());
    match answer {
        LookupAnswer::Failed(_) => {
            tracing::warn!(%name, record, result, "a lookup failed; what was found last stays");
        }
        // Most hosts have addresses of one kind only.
        LookupAnswer::Negative { .. } if question.record_type != DnsRecordType::Aaaa => {
            tracing::warn!(%name, record, result, "DNS says that there is nothing");
        }
        LookupAnswer::Found { .. } | LookupAnswer::Negative { .. } => {
            tracing::debug!(%name, record, result, "looked up");
        }
    }
}

/// Addresses that one line of the log names.
pub const MAX_LOGGED_ADDRESSES: usize = 10;

/// DNS has named addresses that may be no endpoint's.
pub fn log_refused_addresses(question: &LookupQuestion, addresses: &[IpAddr]) {
    let (name, record) = (&question.name, question.record_type.as_str());
    let shown: Vec<String> =
        addresses.iter().take(MAX_LOGGED_ADDRESSES).map(ToString::to_string).collect();
    tracing::warn!(
        %name,
        record,
        addresses = shown.join(" "),
        count = addresses.len(),
        "addresses of this machine, or next to it, are no endpoints unless `dns.allow` has them"
    );
}

/// How late control woke up.
pub fn record_lag(lag: Duration) {
    gauge!("gapless_control_lag_seconds").set(lag.as_secs_f64());
}

/// A snapshot was published.
pub fn record_snapshot(version: u64) {
    gauge!("gapless_snapshot_version").set(version as f64);
}

/// A reload succeeded or not.
pub fn record_reload(ok: bool) {
    let result = if ok { "ok" } else { "refused" };
    counter!("gapless_config_reloads_total", "result" => result).increment(1);
    gauge!("gapless_config_last_reload_ok").set(if ok { 1.0 } else { 0.0 });
}

/// This process has taken over from another, or another one from this has failed to.
pub fn record_upgrade(ok: bool) {
    let result = if ok { "ok" } else { "failed" };
    counter!("gapless_upgrades_total", "result" => result).increment(1);
    gauge!("gapless_last_upgrade_ok").set(if ok { 1.0 } else { 0.0 });
}

/// Milliseconds with a fraction.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

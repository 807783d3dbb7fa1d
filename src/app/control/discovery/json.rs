//! `/api/v1/discovery` and the gauges of DNS names.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::time::Instant;

use serde_json::{Value, json};

use crate::app::ops::api::WallClock;
use crate::app::ops::event_log::millis;
use crate::app::ops::metrics::{Collect, FamilyWriter, families};
use crate::logic::discovery::{
    DiscoveryEntry, EndpointOrigin, LookupRecords, LookupState, LookupStatus, SrvTarget,
};

use super::{Discovery, name_status};

/// The DNS name, and the SRV target if any, by which an endpoint was found.
pub fn found_by_text(found: &EndpointOrigin) -> String {
    let mut text = found.discovery_name.to_string();
    if let Some(target) = &found.target {
        let _ = write!(text, " by {target}");
    }
    if found.is_stale {
        text.push_str(" (no longer in DNS)");
    }
    text
}

impl Discovery {
    pub fn to_json(&self, clock: &WallClock, now: Instant) -> Value {
        let servers = self.dns.servers();
        let names: Vec<Value> = self.entries.iter().map(|entry| self.name_json(entry)).collect();
        let lookups: Vec<Value> =
            self.lookups.statuses().map(|status| lookup_json(&status, clock, now)).collect();
        json!({
            "servers": servers.addresses.as_ref().map(|all| {
                all.iter().map(ToString::to_string).collect::<Vec<_>>()
            }),
            "names": names,
            "lookups": lookups,
        })
    }

    fn name_json(&self, entry: &DiscoveryEntry) -> Value {
        let endpoints: Vec<Value> = self
            .endpoints_of(entry)
            .into_iter()
            .flatten()
            .map(|(address, found)| {
                json!({
                    "address": address.to_string(),
                    "target": found.target.as_deref(),
                    "kept": found.is_stale,
                })
            })
            .collect();
        json!({
            "pool": *entry.pool,
            "zone": entry.place.to_string(),
            "name": entry.discovery_name.to_string(),
            "weight": entry.weight,
            "state": name_status(&self.lookups, &entry.discovery_name).as_str(),
            "endpoints": endpoints,
        })
    }
}

/// Gauges of every name.
impl Collect for Discovery {
    fn collect(&self, out: &mut FamilyWriter) {
        for entry in &self.entries {
            let DiscoveryEntry { pool, place, discovery_name, .. } = entry;
            let endpoints = self.endpoints_of(entry);
            let found = endpoints.into_iter().flat_map(BTreeMap::values);
            let stale_count = found.filter(|found| found.is_stale).count() as f64;
            let count = endpoints.map_or(0, BTreeMap::len) as f64;
            let mut lookups = self.lookups.status_of_name(discovery_name);
            let good_at = lookups.iter().filter_map(|status| status.good_at).max();
            lookups.extend(self.lookups.status_of_targets(discovery_name));
            let failing = lookups.iter().filter_map(|status| status.failure);
            let failures = failing.map(|(_, in_a_row)| in_a_row).max().unwrap_or(0);
            let labels: [&dyn Display; 3] = [pool, place, discovery_name];
            out.gauge(families::DNS_ENDPOINTS, labels, count);
            out.gauge(families::DNS_ENDPOINTS_KEPT, labels, stale_count);
            out.gauge(families::DNS_FAILURES_IN_A_ROW, labels, f64::from(failures));
            if let Some(good_at) = good_at {
                let age = out.now().saturating_duration_since(good_at);
                out.gauge(families::DNS_ANSWER_AGE, labels, age.as_secs_f64());
            }
        }
    }
}

fn lookup_json(status: &LookupStatus, clock: &WallClock, now: Instant) -> Value {
    let answers: Vec<String> = match &status.records {
        Some(LookupRecords::Addresses(all)) => all.iter().map(ToString::to_string).collect(),
        Some(LookupRecords::SrvTargets(all)) => {
            let text = |one: &SrvTarget| {
                format!("{} {} {} {}", one.priority, one.weight, one.port, one.target)
            };
            all.iter().map(text).collect()
        }
        None => Vec::new(),
    };
    let failing = status
        .failure
        .map(|(failure, in_a_row)| json!({ "reason": failure.as_str(), "in_a_row": in_a_row }));
    json!({
        "name": *status.question.name,
        "record": status.question.record_type.as_str(),
        "state": status.state.as_str(),
        "kept": matches!(status.state, LookupState::Negative(_)) && status.records.is_some(),
        "answers": answers,
        "left_out": status.omitted_count,
        "refused": status.refused.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "answered": status.good_at.map(|at| clock.to_rfc3339(at)),
        "answered_ago_ms": status.good_at.map(|at| millis(now.saturating_duration_since(at))),
        "failing": failing,
        "asked_ago_ms": status.last_query_at.map(|at| millis(now.saturating_duration_since(at))),
        "next_in_ms": status.due_at.map(|at| millis(at.saturating_duration_since(now))),
    })
}

//! `/api/v1/discovery` and the gauges of DNS names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

use serde_json::{Value, json};

use crate::app::ops::api::WallClock;
use crate::app::ops::event_log::millis;
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

    /// Gauges of every name in the Prometheus text format.
    pub fn render_metrics(&self, now: Instant) -> String {
        let mut page = String::new();
        let mut gauge = |name: &str, help: &str, value: &dyn Fn(&DiscoveryEntry) -> Option<f64>| {
            let samples = self.entries.iter().filter_map(|entry| Some((entry, value(entry)?)));
            let mut samples = samples.peekable();
            if samples.peek().is_some() {
                let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge");
            }
            for (entry, value) in samples {
                // Names consist of letters, digits and `-_.:`, so no label needs escaping.
                let DiscoveryEntry { pool, place, discovery_name, .. } = entry;
                let _ = writeln!(
                    page,
                    "{name}{{pool=\"{pool}\",zone=\"{place}\",name=\"{discovery_name}\"}} {value}"
                );
            }
        };
        let help = "Endpoints that a DNS name resolves to.";
        gauge("gapless_dns_endpoints", help, &|entry| {
            Some(self.endpoints_of(entry).map_or(0, BTreeMap::len) as f64)
        });
        let help = "Endpoints of a DNS name that are kept although DNS no longer lists them.";
        gauge("gapless_dns_endpoints_kept", help, &|entry| {
            let all = self.endpoints_of(entry).into_iter().flat_map(BTreeMap::values);
            Some(all.filter(|found| found.is_stale).count() as f64)
        });
        let help = "Age of the last good DNS answer for a name.";
        gauge("gapless_dns_answer_age_seconds", help, &|entry| {
            let direct = self.lookups.status_of_name(&entry.discovery_name);
            let good_at = direct.iter().filter_map(|status| status.good_at).max()?;
            Some(now.saturating_duration_since(good_at).as_secs_f64())
        });
        let help = "Consecutive failed lookups of a DNS name.";
        gauge("gapless_dns_failures_in_a_row", help, &|entry| {
            let mut all = self.lookups.status_of_name(&entry.discovery_name);
            all.extend(self.lookups.status_of_targets(&entry.discovery_name));
            let failing = all.iter().filter_map(|status| status.failure);
            Some(f64::from(failing.map(|(_, in_a_row)| in_a_row).max().unwrap_or(0)))
        });
        page
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

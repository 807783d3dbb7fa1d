//! `/api/v1/discovery`: what is looked up, and what came of it. And the gauges of the same.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

use serde_json::{Value, json};

use crate::app::api::Clock;
use crate::app::observe::millis;
use crate::logic::discovery::{Data, Entry, Found, Service, Standing, Status};

use super::{Discovery, standing};

/// By what name an endpoint was found, in words.
#[must_use]
pub fn found_by(found: &Found) -> String {
    let mut text = found.wanted.to_string();
    if let Some(target) = &found.target {
        let _ = write!(text, " by {target}");
    }
    if found.is_kept {
        text.push_str(" (DNS has it no more)");
    }
    text
}

impl Discovery {
    /// All of it.
    #[must_use]
    pub fn json(&self, clock: &Clock, now: Instant) -> Value {
        let servers = self.dns.servers();
        let names: Vec<Value> = self.entries.iter().map(|entry| self.name(entry)).collect();
        let lookups: Vec<Value> =
            self.lookups.statuses().map(|status| lookup(&status, clock, now)).collect();
        json!({
            "servers": servers.addresses.as_ref().map(|all| {
                all.iter().map(ToString::to_string).collect::<Vec<_>>()
            }),
            "names": names,
            "lookups": lookups,
        })
    }

    fn name(&self, entry: &Entry) -> Value {
        let endpoints: Vec<Value> = self
            .endpoints_of(entry)
            .into_iter()
            .flatten()
            .map(|(address, found)| {
                json!({
                    "address": address.to_string(),
                    "target": found.target.as_deref(),
                    "kept": found.is_kept,
                })
            })
            .collect();
        json!({
            "pool": *entry.pool,
            "zone": entry.place.to_string(),
            "name": entry.wanted.to_string(),
            "weight": entry.weight,
            "state": standing(&self.lookups, &entry.wanted).as_str(),
            "endpoints": endpoints,
        })
    }

    /// Gauges of every name, in the text format of Prometheus.
    #[must_use]
    pub fn gauges(&self, now: Instant) -> String {
        let mut page = String::new();
        let mut gauge = |name: &str, help: &str, value: &dyn Fn(&Entry) -> Option<f64>| {
            let samples = self.entries.iter().filter_map(|entry| Some((entry, value(entry)?)));
            let mut samples = samples.peekable();
            if samples.peek().is_some() {
                let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge");
            }
            for (entry, value) in samples {
                // Names are letters, digits and `-_.:`: nothing is to be escaped.
                let Entry { pool, place, wanted, .. } = entry;
                let _ = writeln!(
                    page,
                    "{name}{{pool=\"{pool}\",zone=\"{place}\",name=\"{wanted}\"}} {value}"
                );
            }
        };
        let help = "Endpoints that a name leads to.";
        gauge("gapless_dns_endpoints", help, &|entry| {
            Some(self.endpoints_of(entry).map_or(0, BTreeMap::len) as f64)
        });
        let help = "Endpoints of a name that stay although DNS says that there are none.";
        gauge("gapless_dns_endpoints_kept", help, &|entry| {
            let all = self.endpoints_of(entry).into_iter().flat_map(BTreeMap::values);
            Some(all.filter(|found| found.is_kept).count() as f64)
        });
        let help = "How long ago DNS last said where a name leads.";
        gauge("gapless_dns_answer_age_seconds", help, &|entry| {
            let direct = self.lookups.status_of(&entry.wanted);
            let good_at = direct.iter().filter_map(|status| status.good_at).max()?;
            Some(now.saturating_duration_since(good_at).as_secs_f64())
        });
        let help = "Lookups of a name that have failed in a row.";
        gauge("gapless_dns_failures_in_a_row", help, &|entry| {
            let mut all = self.lookups.status_of(&entry.wanted);
            all.extend(self.lookups.status_of_targets(&entry.wanted));
            let failing = all.iter().filter_map(|status| status.failing);
            Some(f64::from(failing.map(|(_, in_a_row)| in_a_row).max().unwrap_or(0)))
        });
        page
    }
}

fn lookup(status: &Status, clock: &Clock, now: Instant) -> Value {
    let answers: Vec<String> = match &status.data {
        Some(Data::Addresses(all)) => all.iter().map(ToString::to_string).collect(),
        Some(Data::Services(all)) => {
            let text = |one: &Service| {
                format!("{} {} {} {}", one.priority, one.weight, one.port, one.target)
            };
            all.iter().map(text).collect()
        }
        None => Vec::new(),
    };
    let failing = status
        .failing
        .map(|(failure, in_a_row)| json!({ "reason": failure.as_str(), "in_a_row": in_a_row }));
    json!({
        "name": *status.question.name,
        "record": status.question.record.as_str(),
        "state": status.standing.as_str(),
        "kept": matches!(status.standing, Standing::Lacking(_)) && status.data.is_some(),
        "answers": answers,
        "left_out": status.left_out,
        "refused": status.refused.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "answered": status.good_at.map(|at| clock.text(at)),
        "answered_ago_ms": status.good_at.map(|at| millis(now.saturating_duration_since(at))),
        "failing": failing,
        "asked_ago_ms": status.asked_at.map(|at| millis(now.saturating_duration_since(at))),
        "next_in_ms": status.due.map(|at| millis(at.saturating_duration_since(now))),
    })
}

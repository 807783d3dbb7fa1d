//! The query of `/api/v1/incidents` and `gapless incidents`.

use std::time::Duration;

use crate::app::ops::explain::query::{percent_encode, query_pairs};
use crate::config::units;

use super::incident_store::IncidentReport;
use super::joined_incidents::{IncidentEntry, IncidentScope};
use super::record::IncidentRecord;

/// Default limit of incidents of endpoints; the newest are returned.
const DEFAULT_LIMIT: usize = 1_000;

/// The keys of the query, for error messages.
const QUERY_HELP: &str = "`id`, `pool`, `zone`, `region`, `class`, `since` and `until` (such as 24h, 7d or \
                    2026-01-31T12:00:00Z), `limit` and `format` (json, text or csv)";

/// Format of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncidentFormat {
    #[default]
    Json,
    Text,
    /// Comma-separated values (RFC 4180).
    Csv,
}

impl IncidentFormat {
    fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Csv => "csv",
        }
    }
}

/// A query; an incident must meet all conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncidentQuery {
    /// The incident with this number, or the joined one with it as a member.
    pub id: Option<u64>,
    pub pool: Option<String>,
    /// Only this zone: `region/zone`.
    pub zone: Option<String>,
    pub region: Option<String>,
    pub class: Option<String>,
    /// Only incidents not over before this: a duration before now, or a time.
    pub since: Option<String>,
    pub until: Option<String>,
    /// Limit of incidents of endpoints.
    pub limit: Option<usize>,
    pub format: IncidentFormat,
}

impl IncidentQuery {
    /// Parses the query part of a request's target.
    ///
    /// # Errors
    /// If a key is unknown or a value is invalid.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self::default();
        for (key, value) in query_pairs(text) {
            let number = || value.parse().map_err(|_| format!("`{key}` is a whole number"));
            match key {
                "id" => query.id = Some(number()?),
                "limit" => query.limit = Some(number()? as usize),
                "pool" => query.pool = Some(value),
                "zone" => query.zone = Some(value),
                "region" => query.region = Some(value),
                "class" => query.class = Some(value),
                "since" => query.since = Some(value),
                "until" => query.until = Some(value),
                "format" => {
                    let forms = [IncidentFormat::Json, IncidentFormat::Text, IncidentFormat::Csv];
                    let form = forms.into_iter().find(|form| form.as_str() == value);
                    query.format = form.ok_or_else(|| {
                        format!("`{value}` is not a format; the keys are {QUERY_HELP}")
                    })?;
                }
                _ => return Err(format!("`{key}` is not a key; the keys are {QUERY_HELP}")),
            }
        }
        Ok(query)
    }

    /// The request's target for this query.
    pub fn to_request_target(&self) -> String {
        let Self { id, pool, zone, region, class, since, until, limit, format: form } = self;
        let mut target = format!("/api/v1/incidents?format={}", form.as_str());
        let numbers = [("id", *id), ("limit", limit.map(|limit| limit as u64))];
        let texts = [
            ("pool", pool),
            ("zone", zone),
            ("region", region),
            ("class", class),
            ("since", since),
            ("until", until),
        ];
        for (key, value) in numbers {
            if let Some(value) = value {
                target.push_str(&format!("&{key}={value}"));
            }
        }
        for (key, value) in texts {
            if let Some(value) = value {
                target.push_str(&format!("&{key}={}", percent_encode(value)));
            }
        }
        target
    }

    /// Applies the query to `records`, oldest first, as of `now_us`. `interval` is the longest
    /// probe interval.
    ///
    /// # Errors
    /// If a time cannot be read.
    pub fn evaluate<'r>(
        &self,
        records: impl DoubleEndedIterator<Item = &'r IncidentRecord>,
        interval: Duration,
        now_us: u64,
    ) -> Result<IncidentReport, String> {
        let since_us = self.since.as_deref().map(|text| parse_time(text, now_us)).transpose()?;
        let until_us = self.until.as_deref().map(|text| parse_time(text, now_us)).transpose()?;
        let is =
            |filter: &Option<String>, value: &str| filter.as_deref().is_none_or(|one| one == value);
        let is_asked = |record: &&IncidentRecord| {
            is(&self.pool, &record.pool)
                && is(&self.zone, &record.place)
                && is(&self.region, record.region())
                && is(&self.class, &record.class)
                && since_us.is_none_or(|since| record.ended_us.is_none_or(|at| at >= since))
                && until_us.is_none_or(|until| record.onset_us() <= until)
        };
        // Joining comes before the conditions on number and count, so that they do not change it.
        let limit =
            if self.id.is_some() { usize::MAX } else { self.limit.unwrap_or(DEFAULT_LIMIT) };
        let mut matching: Vec<&IncidentRecord> =
            records.rev().filter(is_asked).take(limit).collect();
        matching.reverse();
        let mut report = IncidentReport::from_records(matching.into_iter(), interval);
        if let Some(id) = self.id {
            report.retain_incident(id);
        }
        Ok(report)
    }
}

impl IncidentReport {
    /// Keeps the incident with this number and its members.
    fn retain_incident(&mut self, id: u64) {
        let is_it = |entry: &IncidentEntry| entry.record.id == id || entry.members.contains(&id);
        self.regions.retain(is_it);
        self.zones.retain(is_it);
        let of_it = self.regions.iter().chain(&self.zones).filter(|entry| entry.record.id == id);
        let members: Vec<u64> = of_it.flat_map(|entry| entry.members.clone()).collect();
        self.endpoints.retain(|one| one.record.id == id || members.contains(&one.record.id));
    }

    /// Incidents that are not members of another one, newest first.
    pub fn top_level(&self) -> Vec<&IncidentEntry> {
        let Self { regions, zones, endpoints } = self;
        let is_in = |outer: &[IncidentEntry], entry: &IncidentEntry| {
            let first = entry.members.first().unwrap_or(&entry.record.id);
            outer.iter().any(|outer| outer.members.binary_search(first).is_ok())
        };
        let zones_alone = zones.iter().filter(|zone| !is_in(regions, zone));
        let alone = endpoints.iter().filter(|one| !is_in(regions, one) && !is_in(zones, one));
        let mut all: Vec<&IncidentEntry> = regions.iter().chain(zones_alone).chain(alone).collect();
        all.sort_by_key(|entry| (std::cmp::Reverse(entry.record.onset_us()), entry.record.id));
        all
    }

    /// All incidents: regions, then zones, then endpoints.
    pub fn all_entries(&self) -> impl Iterator<Item = &IncidentEntry> {
        self.regions.iter().chain(&self.zones).chain(&self.endpoints)
    }

    /// The incidents of one scope.
    pub fn entries_in_scope(&self, scope: IncidentScope) -> &[IncidentEntry] {
        match scope {
            IncidentScope::Region => &self.regions,
            IncidentScope::Zone => &self.zones,
            IncidentScope::Endpoint => &self.endpoints,
        }
    }
}

/// Reads a duration such as `24h` as that long before `now_us`, else a time. In microseconds since
/// 1970.
fn parse_time(text: &str, now_us: u64) -> Result<u64, String> {
    if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        return Ok(u64::try_from(stamp.as_microsecond()).unwrap_or(0));
    }
    let ago = units::parse_age(text).ok_or_else(|| {
        format!(
            "`{text}` is not a time; write a duration such as 24h or 7d, or 2026-01-31T12:00:00Z"
        )
    })?;
    Ok(now_us.saturating_sub(u64::try_from(ago.as_micros()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_US: u64 = 3_600_000_000;
    const NOW_US: u64 = 1_700_000_000_000_000;

    fn record(id: u64, place: &str, hours_ago: u64) -> IncidentRecord {
        let at = NOW_US - hours_ago * HOUR_US + id;
        IncidentRecord {
            id,
            pool: "web".into(),
            place: place.into(),
            endpoint: Some(format!("10.0.0.{id}:80")),
            class: "refused".into(),
            last_good_us: at,
            first_bad_us: at,
            verdict_us: at + 5,
            ended_us: Some(at + 10),
            ..IncidentRecord::default()
        }
    }

    fn ids(query: &str, records: &[IncidentRecord]) -> Vec<u64> {
        let query = IncidentQuery::parse(query).expect("good");
        let report = query.evaluate(records.iter(), Duration::ZERO, NOW_US).expect("good");
        report.endpoints.iter().map(|entry| entry.record.id).collect()
    }

    #[test]
    fn query_keys_each_narrow_the_result() {
        let records =
            [record(1, "r/a", 30), record(2, "r/a", 30), record(3, "r/b", 5), record(4, "q/a", 1)];
        assert_eq!(ids("", &records), [1, 2, 3, 4]);
        assert_eq!(ids("limit=2", &records), [3, 4], "the newest");
        assert_eq!(ids("zone=r/b", &records), [3]);
        assert_eq!(ids("region=r", &records), [1, 2, 3]);
        assert_eq!(ids("since=24h", &records), [3, 4]);
        assert_eq!(ids("since=1d&until=2h", &records), [3]);
        assert_eq!(ids("pool=db", &records), [0; 0]);
        assert_eq!(ids("class=silent", &records), [0; 0]);
        assert_eq!(ids("id=1", &records), [1, 2], "the zone that it is the first of");
        assert_eq!(ids("id=2", &records), [2]);
    }

    #[test]
    fn member_of_zone_incident_is_not_listed_again() {
        let records = [record(1, "r/a", 30), record(2, "r/a", 30), record(3, "r/b", 5)];
        let report = IncidentQuery::default()
            .evaluate(records.iter(), Duration::ZERO, NOW_US)
            .expect("good");
        let top_level: Vec<_> =
            report.top_level().iter().map(|entry| (entry.scope, entry.record.id)).collect();
        assert_eq!(top_level, [(IncidentScope::Endpoint, 3), (IncidentScope::Zone, 1)]);
    }

    #[test]
    fn invalid_query_is_an_error() {
        assert!(IncidentQuery::parse("poool=a").expect_err("no").contains("`poool` is not a key"));
        assert!(
            IncidentQuery::parse("format=xml").expect_err("no").contains("`xml` is not a format")
        );
        assert!(IncidentQuery::parse("limit=many").expect_err("no").contains("whole number"));
        let query = IncidentQuery::parse("since=yesterday").expect("read later");
        let why = query.evaluate([].iter(), Duration::ZERO, NOW_US).expect_err("no");
        assert!(why.contains("`yesterday` is not a time"), "{why}");
    }

    proptest! {
        #[test]
        fn encoded_query_is_parsed_back_equal(
            id: Option<u64>,
            limit in proptest::option::of(0_usize..1_000_000),
            pool in proptest::option::of(".{0,8}"),
            zone in proptest::option::of("[a-z]/[a-z]"),
            since in proptest::option::of("[0-9]{1,2}[hd]"),
        ) {
            let query =
                IncidentQuery { id, limit, pool, zone, since, format: IncidentFormat::Csv, ..IncidentQuery::default() };
            let target = query.to_request_target();
            let (_, text) = target.split_once('?').expect("a query");
            prop_assert_eq!(IncidentQuery::parse(text), Ok(query));
        }
    }
}

//! The names that a query of incidents may have: those of the configuration and of the incidents.

use std::collections::BTreeSet;

use crate::config::suggest;
use crate::logic::model::outcome::FailureClass;

use super::LedgerConfig;
use super::query::IncidentQuery;
use super::record::IncidentRecord;

/// Numbers of incidents that an error lists.
const MAX_LISTED_IDS: usize = 3;

#[derive(Debug, Default)]
pub(super) struct KnownNames {
    pools: BTreeSet<String>,
    zones: BTreeSet<String>,
    regions: BTreeSet<String>,
}

impl KnownNames {
    pub(super) fn from_config(config: &LedgerConfig) -> Self {
        let mut names = Self::default();
        for pool in &config.pools {
            names.pools.insert(pool.name.to_string());
            for zone in &pool.zones {
                names.zones.insert(zone.locality.to_string());
                names.regions.insert(zone.locality.region.to_string());
            }
        }
        names
    }

    /// Adds the names of incidents: their pools and zones may have left the configuration.
    pub(super) fn add_records<'r>(&mut self, records: impl Iterator<Item = &'r IncidentRecord>) {
        for record in records {
            self.pools.insert(record.pool.clone());
            self.zones.insert(record.place.clone());
            self.regions.insert(record.region().to_owned());
        }
    }

    /// Checks the names of a query.
    ///
    /// # Errors
    /// The unknown name, and the nearest ones.
    pub(super) fn check(&self, query: &IncidentQuery) -> Result<(), String> {
        let kinds = [
            ("pool", &query.pool, &self.pools),
            ("zone", &query.zone, &self.zones),
            ("region", &query.region, &self.regions),
        ];
        for (kind, name, known) in kinds {
            if let Some(name) = name.as_ref().filter(|name| !known.contains(*name)) {
                return Err(unknown_name(kind, name, known.iter().map(String::as_str)));
            }
        }
        let classes = || FailureClass::ALL.into_iter().map(FailureClass::as_str);
        match query.class.as_deref().filter(|class| !classes().any(|one| one == *class)) {
            Some(class) => Err(unknown_name("class", class, classes())),
            None => Ok(()),
        }
    }
}

fn unknown_name<'n>(
    kind: &str,
    name: &str,
    known: impl Iterator<Item = &'n str> + Clone,
) -> String {
    if let Some(nearest) = suggest::nearest(name, known.clone()) {
        return format!("there is no {kind} `{name}`: did you mean `{nearest}`?");
    }
    match suggest::quoted_list(known) {
        list if list.is_empty() => format!("there is no {kind} `{name}`, and no incident"),
        list => format!("there is no {kind} `{name}`; write one of {list}"),
    }
}

/// The error for a number that no incident has, with the nearest numbers.
pub(super) fn unknown_incident<'r>(
    id: u64,
    records: impl Iterator<Item = &'r IncidentRecord>,
) -> String {
    let mut nearest: Vec<u64> = records.map(|record| record.id).collect();
    nearest.sort_by_key(|one| one.abs_diff(id));
    nearest.truncate(MAX_LISTED_IDS);
    nearest.sort_unstable();
    let list: Vec<String> = nearest.iter().map(u64::to_string).collect();
    match list.as_slice() {
        [] => format!("there is no incident {id}, and no other"),
        [only] => format!("there is no incident {id}; the only one is {only}"),
        several => format!("there is no incident {id}; the nearest are {}", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64, place: &str) -> IncidentRecord {
        let (pool, place) = ("web".into(), place.into());
        IncidentRecord { id, pool, place, ..IncidentRecord::default() }
    }

    #[test]
    fn unknown_names_are_reported_with_the_nearest() {
        let records = [record(1, "east/a"), record(7, "west/b")];
        let mut names = KnownNames::default();
        names.add_records(records.iter());
        let error = |query: &str| {
            names.check(&IncidentQuery::parse(query).expect("a query")).expect_err("unknown")
        };
        assert_eq!(error("pool=wep"), "there is no pool `wep`: did you mean `web`?");
        assert!(error("zone=north/c").contains("`east/a`, `west/b`"));
        assert!(error("region=weste").contains("`west`"));
        assert!(error("class=foo").contains("`refused`, `reset`, `silent`, `bad_status`, `tls`"));
        let known = IncidentQuery::parse("pool=web&zone=east/a&region=west&class=tls");
        assert_eq!(names.check(&known.expect("a query")), Ok(()));
    }

    #[test]
    fn unknown_number_is_reported_with_the_nearest() {
        let records: Vec<_> = [1, 2, 3, 17, 18].map(|id| record(id, "east/a")).into();
        let nearest = |count: usize, id| unknown_incident(id, records[..count].iter());
        assert!(nearest(5, 999).ends_with("the nearest are 3, 17, 18"));
        assert!(nearest(1, 999).ends_with("the only one is 1"));
        assert!(nearest(0, 999).ends_with("and no other"));
    }
}

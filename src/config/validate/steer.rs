//! Checks of how a pool's traffic is led.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::check::{Check, Key};
use crate::config::file::{self, Decimal, Entries, Located, Table, WordOr, Zone};
use crate::config::findings::Flaw;
use crate::config::suggest;
use crate::logic::steer::{Capacity, Overprovisioning, Policy, Role, Steer, ZoneTerms};
use crate::logic::topology::ZoneSpec;

const WEIGHT: RangeInclusive<u32> = 0..=1_000;
const STATED: RangeInclusive<u32> = 1..=100_000_000;
const MIN_CAPACITY: RangeInclusive<u32> = 0..=1_000_000;

/// What a pool says of it.
pub(super) struct Said {
    pub(super) steer: Option<Located<WordOr<file::Steer>>>,
    pub(super) capacity: Option<Table<file::Capacity>>,
    pub(super) region: Option<Entries<Table<file::Region>>>,
}

impl Check<'_> {
    pub(super) fn steer(&mut self, said: Said, zones: &[ZoneSpec]) -> Steer {
        let (policy, overprovisioning) = match said.steer {
            None => Default::default(),
            Some(Located { value: WordOr::Word(word), span }) => {
                let given = Some(Located { value: word, span: span.clone() });
                (self.policy(&Key::new(&span, "steer", &given)), Overprovisioning::default())
            }
            Some(Located { value: WordOr::Table(table), span }) => {
                let policy = self.policy(&Key::new(&span, "policy", &table.policy));
                let key = Key::new(&span, "overprovisioning", &table.overprovisioning);
                (policy, self.setting(&key, Overprovisioning::default(), overprovisioning).value)
            }
        };
        let endpoint = self.capacity(said.capacity);
        let regions = said.region.map(|regions| regions.0).unwrap_or_default();
        let regions = regions.into_iter().filter_map(|(name, table)| {
            let capacity = self.capacity(table.value.capacity);
            let known = zones.iter().map(|zone| &*zone.place.region);
            if !known.clone().any(|region| region == name.value) && !zones.is_empty() {
                let message = format!("no zone of this pool is in the region `{}`", name.value);
                let mend = suggest::nearest(&name.value, known).map_or_else(
                    || "name the region of one of its zones".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                self.findings.error(&name.span, Flaw::new(message, mend));
                return None;
            }
            Some((Arc::from(name.value.as_str()), capacity))
        });
        let regions = regions.collect();
        Steer { policy, overprovisioning, endpoint, regions }
    }

    /// What a zone says beside its name and its endpoints.
    pub(super) fn terms(&mut self, table: &std::ops::Range<usize>, zone: &mut Zone) -> ZoneTerms {
        let default = ZoneTerms::default();
        let weight = self.whole(&Key::new(table, "weight", &zone.weight), &WEIGHT, default.weight);
        let key = Key::new(table, "role", &zone.role);
        let role = self.setting(&key, default.role, |word| match word.as_str() {
            "active" => Ok(Role::Active),
            "standby" => Ok(Role::Standby),
            _ => Err(Flaw::new(
                format!("`{word}` is no role"),
                "write \"active\" or \"standby\", or leave it out",
            )),
        });
        let key = Key::new(table, "min_capacity", &zone.min_capacity);
        let min_capacity = self.whole(&key, &MIN_CAPACITY, default.min_capacity);
        let capacity = self.capacity(zone.capacity.take());
        ZoneTerms { weight, role: role.value, min_capacity, capacity }
    }

    fn policy(&mut self, key: &Key<'_, String>) -> Policy {
        let read = |word: &String| {
            Policy::parse(word).ok_or_else(|| {
                let known = Policy::ALL.map(Policy::as_str);
                let mend = suggest::nearest(word, known).map_or_else(
                    || format!("write one of {}", suggest::list(known)),
                    |near| format!("did you mean \"{near}\"?"),
                );
                Flaw::new(format!("`{word}` is no policy"), mend)
            })
        };
        self.setting(key, Policy::default(), read).value
    }

    fn capacity(&mut self, capacity: Option<Table<file::Capacity>>) -> Capacity {
        let Table { value: given, span: table } = capacity.unwrap_or_default();
        let mut stated = |name, given: &Option<Located<file::Whole>>| {
            let key = Key::new(&table, name, given);
            given.is_some().then(|| self.whole(&key, &STATED, 1))
        };
        Capacity {
            requests: stated("requests", &given.requests),
            rate: stated("rate", &given.rate),
        }
    }
}

fn overprovisioning(given: &Decimal) -> Result<Overprovisioning, Flaw> {
    let mend = "write a number from 1 to 100, such as 1.4";
    match given {
        Decimal::Text(text) => Err(match text.trim().parse::<f64>() {
            Ok(number) => Flaw::new(
                "`overprovisioning` is a number, without quotes",
                format!("write it as {number}"),
            ),
            Err(_) => Flaw::new(format!("`{text}` is not a number"), mend),
        }),
        Decimal::Number(number) => {
            let hundredths = (number * 100.0).round();
            let is_exact = (number * 100.0 - hundredths).abs() < 1e-6;
            let fitting = is_exact.then(|| Overprovisioning::new(hundredths as u32)).flatten();
            fitting.ok_or_else(|| {
                let why =
                    if is_exact { "must be from 1 to 100" } else { "has two decimals at most" };
                Flaw::new(format!("`overprovisioning` {why}, not {number}"), mend)
            })
        }
    }
}

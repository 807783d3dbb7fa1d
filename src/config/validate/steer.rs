//! Checks of how a pool's traffic is led.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::Pools;
use super::check::{Check, Key};
use crate::config::file::{self, Decimal, Entries, Located, Table, WordOr, Zone};
use crate::config::findings::Flaw;
use crate::config::model::Geo;
use crate::config::suggest;
use crate::logic::steer::{
    Capacity, Country, Location, Overprovisioning, Policy, Role, Steer, Way, ZoneTerms,
};
use crate::logic::topology::ZoneSpec;

const WEIGHT: RangeInclusive<u32> = 0..=1_000;
const STATED: RangeInclusive<u32> = 1..=100_000_000;
const MIN_CAPACITY: RangeInclusive<u32> = 0..=1_000_000;

/// Largest database: those of all cities take a tenth of it.
const MAX_DATABASE_BYTES: u64 = 1024 * 1024 * 1024;

/// What a pool says of it.
pub(super) struct Said {
    pub(super) steer: Option<Located<WordOr<file::Steer>>>,
    pub(super) capacity: Option<Table<file::Capacity>>,
    pub(super) region: Option<Entries<Table<file::Region>>>,
}

impl Check<'_> {
    pub(super) fn steer(&mut self, said: Said, zones: &[ZoneSpec]) -> Steer {
        let mut steer = Steer { endpoint: self.capacity(said.capacity), ..Steer::default() };
        let mut countries = None;
        match said.steer {
            None => {}
            Some(Located { value: WordOr::Word(value), span }) => {
                steer.policy = self.policy(&Located { value, span });
            }
            Some(Located { value: WordOr::Table(table), span }) => {
                steer.policy = table.policy.map(|word| self.policy(&word)).unwrap_or_default();
                let key = Key::new(&span, "overprovisioning", &table.overprovisioning);
                let default = Overprovisioning::default();
                steer.overprovisioning = self.setting(&key, default, overprovisioning).value;
                countries = table.countries;
            }
        }
        for (name, Table { value, span }) in said.region.map(|all| all.0).unwrap_or_default() {
            let capacity = self.capacity(value.capacity);
            let key = Key::new(&span, "location", &value.location);
            let location = self.setting(&key, None, |degrees| location(degrees).map(Some)).value;
            if let Some(region) = self.region(&name, zones) {
                steer.geography.regions.extend(location.map(|at| (Arc::clone(&region), at)));
                steer.regions.push((region, capacity));
            }
        }
        for (name, regions) in countries.map(|all| all.0).unwrap_or_default() {
            let Some(country) = Country::parse(&name.value) else {
                let message = format!("`{}` is no country", name.value);
                let mend = "write its two letters (ISO 3166-1), such as DE";
                self.findings.error(&name.span, Flaw::new(message, mend));
                continue;
            };
            let regions = regions.value.iter().filter_map(|region| self.region(region, zones));
            steer.geography.countries.insert(country, regions.collect());
        }
        for order in steer.geography.orders() {
            steer.add(Way::Regions(order));
        }
        steer
    }

    /// The name of a region that some zone is in.
    fn region(&mut self, name: &Located<String>, zones: &[ZoneSpec]) -> Option<Arc<str>> {
        let known = zones.iter().map(|zone| &*zone.place.region);
        if zones.is_empty() || known.clone().any(|region| region == name.value) {
            return Some(Arc::from(name.value.as_str()));
        }
        let mend = suggest::nearest(&name.value, known).map_or_else(
            || "name the region of one of its zones".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!("no zone of this pool is in the region `{}`", name.value);
        self.findings.error(&name.span, Flaw::new(message, mend));
        None
    }

    /// How it is known where clients are. Pools that are led by that need it.
    pub(super) fn geo(&mut self, geo: Option<Table<file::Geo>>, pools: &Pools) -> Geo {
        let mut known = Geo::default();
        if let Some(Table { value: given, span: table }) = geo {
            known.database = given.database.as_ref().and_then(|path| self.database(path));
            let key = Key::new(&table, "country_header", &given.country_header);
            let name = |name: &String| {
                name.parse().map(Some).map_err(|_| {
                    Flaw::new(
                        format!("`{name}` is no name of a header"),
                        "write a name such as \"cf-ipcountry\"",
                    )
                })
            };
            known.country_header = self.setting(&key, None, name).value;
            if given.database.is_none() && given.country_header.is_none() {
                let mend = "add `database` or `country_header`";
                self.findings.error(&table, Flaw::new("nothing tells where clients are", mend));
            }
            return known;
        }
        for (span, pool) in pools.read.iter().filter(|(_, pool)| !pool.steer.geography.is_empty()) {
            let message = format!("nothing tells where clients of the pool `{}` are", pool.name);
            let mend = "add `[geo]` with `database` or `country_header`";
            self.findings.error(span, Flaw::new(message, mend));
        }
        known
    }

    fn database(&mut self, path: &Located<String>) -> Option<Arc<[u8]>> {
        let bytes = self.file_within(path, MAX_DATABASE_BYTES)?;
        if let Err(error) = maxminddb::Reader::from_source(&*bytes) {
            let message = format!("`{}` is no database in MaxMind's format: {error}", path.value);
            let mend = "name a file such as GeoLite2-City.mmdb";
            self.findings.error(&path.span, Flaw::new(message, mend));
            return None;
        }
        Some(bytes)
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

    /// A policy, in a pool or in a route.
    pub(super) fn policy(&mut self, given: &Located<String>) -> Policy {
        Policy::parse(&given.value).unwrap_or_else(|| {
            let known = Policy::ALL.map(Policy::as_str);
            let mend = suggest::nearest(&given.value, known).map_or_else(
                || format!("write one of {}", suggest::list(known)),
                |near| format!("did you mean \"{near}\"?"),
            );
            let flaw = Flaw::new(format!("`{}` is no policy", given.value), mend);
            self.findings.error(&given.span, flaw);
            Policy::default()
        })
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

/// Two numbers, in degrees.
fn location(degrees: &Vec<Decimal>) -> Result<Location, Flaw> {
    let place = match degrees.as_slice() {
        &[Decimal::Number(latitude), Decimal::Number(longitude)] => {
            Location::new(latitude, longitude)
        }
        _ => None,
    };
    place.ok_or_else(|| {
        Flaw::new(
            "this is no place",
            "write latitude and longitude in degrees, such as [50.11, 8.68]",
        )
    })
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

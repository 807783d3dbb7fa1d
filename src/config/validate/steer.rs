//! Checks of the steering of a pool's traffic.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::ValidatedPools;
use super::validator::{SettingKey, Validator};
use crate::config::diagnostics::Problem;
use crate::config::file::{self, Decimal, Entries, Located, LocatedTable, TextOrTable, Zone};
use crate::config::model::GeoConfig;
use crate::config::suggest;
use crate::logic::model::topology::ZoneSpec;
use crate::logic::steering::{
    CapacityLimits, Country, Location, Overprovisioning, SteeringConfig, SteeringPolicy,
    SteeringVariant, ZoneRole, ZoneSettings,
};

const WEIGHT_RANGE: RangeInclusive<u32> = 0..=1_000;
const CAPACITY_RANGE: RangeInclusive<u32> = 1..=100_000_000;
const MIN_CAPACITY_RANGE: RangeInclusive<u32> = 0..=1_000_000;

/// Largest database: about ten times the size of MaxMind's database of cities.
const MAX_DATABASE_BYTES: u64 = 1024 * 1024 * 1024;

/// The keys of a pool that concern steering.
pub(super) struct SteeringSettings {
    pub(super) steer: Option<Located<TextOrTable<file::Steer>>>,
    pub(super) capacity: Option<LocatedTable<file::Capacity>>,
    pub(super) region: Option<Entries<LocatedTable<file::Region>>>,
}

impl Validator<'_> {
    pub(super) fn steer(
        &mut self,
        settings: SteeringSettings,
        zones: &[ZoneSpec],
    ) -> SteeringConfig {
        let mut steer = SteeringConfig {
            endpoint_capacity: self.capacity(settings.capacity),
            ..SteeringConfig::default()
        };
        let mut countries = None;
        match settings.steer {
            None => {}
            Some(Located { value: TextOrTable::Text(value), span }) => {
                steer.policy = self.policy(&Located { value, span });
            }
            Some(Located { value: TextOrTable::Table(table), span }) => {
                steer.policy = table.policy.map(|word| self.policy(&word)).unwrap_or_default();
                let key = SettingKey::new(&span, "overprovisioning", &table.overprovisioning);
                let default = Overprovisioning::default();
                steer.overprovisioning = self.setting(&key, default, parse_overprovisioning).value;
                countries = table.countries;
            }
        }
        for (name, LocatedTable { value, span }) in
            settings.region.map(|all| all.0).unwrap_or_default()
        {
            let capacity = self.capacity(value.capacity);
            let key = SettingKey::new(&span, "location", &value.location);
            let location =
                self.setting(&key, None, |degrees| parse_location(degrees).map(Some)).value;
            if let Some(region) = self.known_region(&name, zones) {
                steer
                    .geography
                    .region_locations
                    .extend(location.map(|at| (Arc::clone(&region), at)));
                steer.region_capacities.push((region, capacity));
            }
        }
        for (name, regions) in countries.map(|all| all.0).unwrap_or_default() {
            let Some(country) = Country::parse(&name.value) else {
                let message = format!("`{}` is not a country code", name.value);
                let help = "write its two letters (ISO 3166-1), such as DE";
                self.diagnostics.error(&name.span, Problem::new(message, help));
                continue;
            };
            let regions =
                regions.value.iter().filter_map(|region| self.known_region(region, zones));
            steer.geography.regions_by_country.insert(country, regions.collect());
        }
        for order in steer.geography.region_orders() {
            steer.add_variant(SteeringVariant::RegionOrder(order));
        }
        steer
    }

    /// The name of a region, which must have a zone in this pool.
    fn known_region(&mut self, name: &Located<String>, zones: &[ZoneSpec]) -> Option<Arc<str>> {
        let known = zones.iter().map(|zone| &*zone.locality.region);
        if zones.is_empty() || known.clone().any(|region| region == name.value) {
            return Some(Arc::from(name.value.as_str()));
        }
        let help = suggest::nearest(&name.value, known).map_or_else(
            || "name the region of one of its zones".to_owned(),
            |suggestion| format!("did you mean `{suggestion}`?"),
        );
        let message = format!("no zone of this pool is in the region `{}`", name.value);
        self.diagnostics.error(&name.span, Problem::new(message, help));
        None
    }

    /// The source of client locations, which pools that steer by location require.
    pub(super) fn geo(
        &mut self,
        geo: Option<LocatedTable<file::Geo>>,
        pools: &ValidatedPools,
    ) -> GeoConfig {
        let mut config = GeoConfig::default();
        if let Some(LocatedTable { value: given, span: table }) = geo {
            config.database = given.database.as_ref().and_then(|path| self.geo_database(path));
            let key = SettingKey::new(&table, "country_header", &given.country_header);
            let name = |name: &String| {
                name.parse().map(Some).map_err(|_| {
                    Problem::new(
                        format!("`{name}` is not a header name"),
                        "write a name such as \"cf-ipcountry\"",
                    )
                })
            };
            config.country_header = self.setting(&key, None, name).value;
            if given.database.is_none() && given.country_header.is_none() {
                let help = "add `database` or `country_header`";
                self.diagnostics.error(
                    &table,
                    Problem::new("there is no source for the location of clients", help),
                );
            }
            return config;
        }
        for (span, pool) in pools.specs.iter().filter(|(_, pool)| !pool.steer.geography.is_empty())
        {
            let message = format!(
                "there is no source for the location of clients of the pool `{}`",
                pool.name
            );
            let help = "add `[geo]` with `database` or `country_header`";
            self.diagnostics.error(span, Problem::new(message, help));
        }
        config
    }

    fn geo_database(&mut self, path: &Located<String>) -> Option<Arc<[u8]>> {
        let bytes = self.read_file_within(path, MAX_DATABASE_BYTES)?;
        if let Err(error) = maxminddb::Reader::from_source(&*bytes) {
            let message =
                format!("`{}` is not a database in MaxMind's format: {error}", path.value);
            let help = "name a file such as GeoLite2-City.mmdb";
            self.diagnostics.error(&path.span, Problem::new(message, help));
            return None;
        }
        Some(bytes)
    }

    /// The settings of a zone besides its name and endpoints.
    pub(super) fn zone_terms(
        &mut self,
        table: &std::ops::Range<usize>,
        zone: &mut Zone,
    ) -> ZoneSettings {
        let default = ZoneSettings::default();
        let weight = self.integer(
            &SettingKey::new(table, "weight", &zone.weight),
            &WEIGHT_RANGE,
            default.weight,
        );
        let key = SettingKey::new(table, "role", &zone.role);
        let role = self.setting(&key, default.role, |word| match word.as_str() {
            "active" => Ok(ZoneRole::Active),
            "standby" => Ok(ZoneRole::Standby),
            _ => Err(Problem::new(
                format!("`{word}` is not a role"),
                "write \"active\" or \"standby\", or remove it",
            )),
        });
        let key = SettingKey::new(table, "min_capacity", &zone.min_capacity);
        let min_capacity = self.integer(&key, &MIN_CAPACITY_RANGE, default.min_capacity);
        let capacity = self.capacity(zone.capacity.take());
        ZoneSettings { weight, role: role.value, min_capacity, capacity }
    }

    /// The steering policy of a pool or a route.
    pub(super) fn policy(&mut self, given: &Located<String>) -> SteeringPolicy {
        SteeringPolicy::parse(&given.value).unwrap_or_else(|| {
            let known = SteeringPolicy::ALL.map(SteeringPolicy::as_str);
            let help = suggest::nearest(&given.value, known).map_or_else(
                || format!("write one of {}", suggest::quoted_list(known)),
                |suggestion| format!("did you mean \"{suggestion}\"?"),
            );
            let problem = Problem::new(format!("`{}` is not a policy", given.value), help);
            self.diagnostics.error(&given.span, problem);
            SteeringPolicy::default()
        })
    }

    fn capacity(&mut self, capacity: Option<LocatedTable<file::Capacity>>) -> CapacityLimits {
        let LocatedTable { value: given, span: table } = capacity.unwrap_or_default();
        let mut capacity_of = |name, given: &Option<Located<file::WholeNumber>>| {
            let key = SettingKey::new(&table, name, given);
            given.is_some().then(|| self.integer(&key, &CAPACITY_RANGE, 1))
        };
        CapacityLimits {
            requests: capacity_of("requests", &given.requests),
            rate_rps: capacity_of("rate", &given.rate),
        }
    }
}

/// Latitude and longitude, in degrees.
fn parse_location(degrees: &Vec<Decimal>) -> Result<Location, Problem> {
    let parsed = match degrees.as_slice() {
        &[Decimal::Number(latitude), Decimal::Number(longitude)] => {
            Location::new(latitude, longitude)
        }
        _ => None,
    };
    parsed.ok_or_else(|| {
        Problem::new(
            "this is not a location",
            "write latitude and longitude in degrees, such as [50.11, 8.68]",
        )
    })
}

fn parse_overprovisioning(given: &Decimal) -> Result<Overprovisioning, Problem> {
    let help = "write a number from 1 to 100, such as 1.4";
    match given {
        Decimal::Text(text) => Err(match text.trim().parse::<f64>() {
            Ok(number) => Problem::new(
                "`overprovisioning` is a number, without quotes",
                format!("write it as {number}"),
            ),
            Err(_) => Problem::new(format!("`{text}` is not a number"), help),
        }),
        Decimal::Number(number) => {
            let hundredths = (number * 100.0).round();
            let is_exact = (number * 100.0 - hundredths).abs() < 1e-6;
            let in_range = is_exact.then(|| Overprovisioning::new(hundredths as u32)).flatten();
            in_range.ok_or_else(|| {
                let why =
                    if is_exact { "must be from 1 to 100" } else { "has two decimals at most" };
                Problem::new(format!("`overprovisioning` {why}, not {number}"), help)
            })
        }
    }
}

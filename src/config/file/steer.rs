//! The steering of a pool's traffic, as it is written.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use super::located::{Entries, Located, LocatedTable, TableShape};
use super::scalar::WholeNumber;

/// How the traffic of a pool is steered.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Steer {
    /// `nearest`: own zone, own region, then region by region in the order of the file (without
    /// `self`: zone by zone). `failover`: zone by zone in the order of the file. `weighted`: all
    /// zones by their `weight`. `latency`: region by region, the fastest first. `spread`: all
    /// endpoints equally. Default: `nearest`.
    #[schemars(extend("enum" = ["nearest", "failover", "weighted", "latency", "spread"]))]
    pub(in crate::config) policy: Option<Located<String>>,
    /// A tier carries this many times its healthy share before it spills to the next one, 1 to 100.
    /// Default: 1.4.
    pub(in crate::config) overprovisioning: Option<Located<Decimal>>,
    /// Preferred regions for clients of a country; see `geo`. Default: none.
    pub(in crate::config) countries: Option<Countries>,
}

/// Capacity before traffic spills to others; an absent key is no limit.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Capacity {
    /// The number of requests in flight.
    pub(in crate::config) requests: Option<Located<WholeNumber>>,
    /// The number of requests per second.
    pub(in crate::config) rate: Option<Located<WholeNumber>>,
}

/// Settings of one region of a pool.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Region {
    /// Capacity of the region with all of its endpoints up. Default: no limit.
    pub(in crate::config) capacity: Option<LocatedTable<Capacity>>,
    /// The location, as latitude and longitude in degrees: clients whose country is not in
    /// `countries` prefer the nearest region.
    pub(in crate::config) location: Option<Located<Vec<Decimal>>>,
}

/// How the location of a client is determined.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Geo {
    /// A database in MaxMind's format, relative to this file: country and location by address.
    pub(in crate::config) database: Option<Located<String>>,
    /// A header field in which `trusted_proxies` send the client's country; it overrides the
    /// database.
    pub(in crate::config) country_header: Option<Located<String>>,
}

/// Preferred regions by country: two letters (ISO 3166-1) and a list of regions.
pub(in crate::config) type Countries = Entries<Located<Vec<Located<String>>>>;

impl TableShape for Geo {
    const EXPECTED: &str = "a table such as { database = \"GeoLite2-City.mmdb\" }";
}

impl TableShape for Steer {
    const EXPECTED: &str =
        "a policy such as \"nearest\", or a table such as { policy = \"nearest\" }";
    const WORDS: &[&str] = &["nearest", "failover", "weighted", "latency", "spread"];
}

impl TableShape for Capacity {
    const EXPECTED: &str = "a table such as { rate = 500 }";
}

impl TableShape for Region {
    const EXPECTED: &str = "a table such as { capacity = { rate = 500 } }";
}

/// A number that need not be whole, such as `1.4`; text is kept so that the checks can report it.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) enum Decimal {
    Number(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DecimalVisitor)
    }
}

struct DecimalVisitor;

impl Visitor<'_> for DecimalVisitor {
    type Value = Decimal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number such as 1.4")
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Decimal, E> {
        Ok(Decimal::Number(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Decimal, E> {
        Ok(Decimal::Number(number as f64))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Decimal, E> {
        Ok(Decimal::Text(text.to_owned()))
    }
}

impl JsonSchema for Decimal {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Decimal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number" })
    }
}

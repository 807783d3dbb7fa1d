//! The part of the configuration that applies to all client traffic, whatever its route.

use http::HeaderName;

use crate::config::model::{AccessLogConfig, Config, HeaderPolicy, ServerLimits};
use crate::logic::model::network::Network;
use crate::logic::routing::PathNormalisation;
use crate::net::geo_database::GeoDatabase;

/// Settings for client traffic.
#[derive(Debug)]
pub struct HttpPolicy {
    pub limits: ServerLimits,
    /// Header fields that are added, and names that are allowed.
    pub headers: HeaderPolicy,
    pub access_log: AccessLogConfig,
    pub paths: PathNormalisation,
    /// Proxies whose forwarding headers are accepted.
    pub trusted_proxies: Vec<Network>,
    /// Locations of client addresses.
    pub geo_database: Option<GeoDatabase>,
    /// The header in which trusted proxies name the client's country.
    pub country_header: Option<HeaderName>,
}

impl HttpPolicy {
    pub fn from_config(config: &Config) -> Self {
        let Config { limits, headers, access_log, paths, .. } = config;
        Self {
            limits: limits.clone(),
            headers: headers.clone(),
            access_log: access_log.clone(),
            paths: *paths,
            trusted_proxies: config.trusted_proxies.clone(),
            geo_database: config.geo.database.clone().and_then(GeoDatabase::new),
            country_header: config.geo.country_header.clone(),
        }
    }
}

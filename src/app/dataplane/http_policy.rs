//! The part of the configuration that applies to all client traffic, independent of routes and pools.

use http::HeaderName;

use crate::config::model::{AccessLogConfig, Config, HeaderPolicy, ServerLimits};
use crate::logic::model::network::Network;
use crate::logic::routing::PathNormalisation;
use crate::net::geo_database::GeoDatabase;

/// How clients are treated, whatever they ask for.
#[derive(Debug)]
pub struct HttpPolicy {
    pub limits: ServerLimits,
    /// What is added to messages, and what their fields may be called.
    pub headers: HeaderPolicy,
    /// What is written down of each request.
    pub access_log: AccessLogConfig,
    /// How paths are brought to one form.
    pub paths: PathNormalisation,
    /// Proxies that are believed when they say for whom they ask.
    pub trusted_proxies: Vec<Network>,
    /// Knows where clients are.
    pub geo_database: Option<GeoDatabase>,
    /// In which trusted proxies name the client's country.
    pub country_header: Option<HeaderName>,
}

impl HttpPolicy {
    /// What `config` says of them.
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

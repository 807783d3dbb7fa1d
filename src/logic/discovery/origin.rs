//! The origin of a discovered endpoint.

use std::sync::Arc;

use super::discovery_name::DiscoveryName;

/// The name that resolved to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointOrigin {
    pub discovery_name: DiscoveryName,
    /// The target of the service, for SRV records.
    pub target: Option<Arc<str>>,
    /// The name has no records any more; the endpoint is from an earlier answer.
    pub is_stale: bool,
}

//! The names by which endpoints were found.

use std::sync::Arc;

use super::discovery_name::DiscoveryName;

/// By which name an endpoint was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointOrigin {
    pub discovery_name: DiscoveryName,
    /// The target of a service whose address it is.
    pub target: Option<Arc<str>>,
    /// DNS says that there is nothing any more; the endpoint is from before.
    pub is_stale: bool,
}

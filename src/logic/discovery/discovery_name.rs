//! The DNS names that stand for endpoints in the configuration.

use std::fmt;
use std::sync::Arc;

use crate::logic::model::id::Locality;

/// The name by which the endpoints of a zone are discovered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DiscoveryName {
    /// The addresses of a host (A and AAAA), with a fixed port.
    Host {
        /// Lower case. A trailing dot makes the name absolute, without search domains.
        name: Arc<str>,
        port: u16,
    },
    /// The targets of a service (SRV, RFC 2782) with their ports.
    Service {
        /// In the form of a host's name.
        name: Arc<str>,
    },
}

impl DiscoveryName {
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Host { name, .. } | Self::Service { name } => name,
        }
    }
}

impl fmt::Display for DiscoveryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { name, port } => write!(f, "{name}:{port}"),
            Self::Service { name } => write!(f, "srv {name}"),
        }
    }
}

/// A name in a zone of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryEntry {
    pub pool: Arc<str>,
    pub place: Locality,
    pub discovery_name: DiscoveryName,
    /// The weight of each address of a host, and the factor for the weights of a service's records.
    pub weight: u32,
}

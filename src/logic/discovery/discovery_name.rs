//! The DNS names that stand for endpoints in the configuration.

use std::fmt;
use std::sync::Arc;

use crate::logic::model::id::Locality;

/// What an operator has a zone's endpoints found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DiscoveryName {
    /// The addresses of a host (A and AAAA), with this port.
    Host {
        /// In lower case; with a dot at its end it is looked up as it is, and nowhere below.
        name: Arc<str>,
        /// The port of all its addresses.
        port: u16,
    },
    /// The targets of a service (SRV, RFC 2782), with their ports.
    Service {
        /// As that of a host.
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
    /// What is looked up.
    pub discovery_name: DiscoveryName,
    /// The weight of each address of a host; what the weights of a service's records are multiplied by.
    pub weight: u32,
}

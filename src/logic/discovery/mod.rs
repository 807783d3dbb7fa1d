//! Endpoints that are found by name (DNS): when each name is looked up, what is believed of what DNS
//! says, and which endpoints that makes.
//!
//! [`Lookups`] decides when to ask what, and keeps the last good answers. [`compose()`] makes a topology of
//! the declared one and of them. Neither asks anybody: that is the driver's part.

mod address_filter;
mod compose;
mod dns_name;
mod lookup_scheduler;
mod lookup_status;
mod origin;
#[cfg(test)]
mod tests;

pub use compose::{ComposedTopology, PoolAddress, compose};
pub use dns_name::{DnsNameError, normalise_dns_name};
pub use lookup_scheduler::LookupScheduler;
pub use lookup_status::{CachedLookup, LookupChange, LookupState, LookupStatus};
pub use origin::EndpointOrigin;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::model::id::Locality;
use super::model::network::Network;
use super::model::topology::{EndpointSpec, PoolSpec, Topology};

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

/// Which addresses of a host are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressFamily {
    #[default]
    Both,
    Ipv4,
    Ipv6,
}

impl AddressFamily {
    /// The records that hold them.
    pub fn record_types(self) -> &'static [DnsRecordType] {
        match self {
            Self::Both => &[DnsRecordType::A, DnsRecordType::Aaaa],
            Self::Ipv4 => &[DnsRecordType::A],
            Self::Ipv6 => &[DnsRecordType::Aaaa],
        }
    }
}

/// What becomes of the endpoints of a name of which DNS says that there is nothing (any more).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyAnswerPolicy {
    /// They stay, as long as probes and traffic find them well: an emptied zone is a mistake far more
    /// often than it is the wish to serve nobody.
    #[default]
    Keep,
    /// They go at once.
    Remove,
}

/// How names are looked up (`dns` in the file).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupPolicy {
    pub family: AddressFamily,
    /// No record is asked for more often than this, whatever its TTL says.
    pub min_ttl: Duration,
    pub max_ttl: Duration,
    /// After a failed or empty lookup; doubled by each further one.
    pub retry_min: Duration,
    /// The longest that becomes.
    pub retry_max: Duration,
    /// What becomes of endpoints when nothing is found any more.
    pub on_empty: EmptyAnswerPolicy,
    /// Addresses or targets taken of one answer; the rest is left out.
    pub max_answers: usize,
    /// Networks whose addresses may be endpoints' although they are this machine's, or next to it.
    pub allowed_networks: Arc<[Network]>,
}

impl Default for LookupPolicy {
    fn default() -> Self {
        Self {
            family: AddressFamily::Both,
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_mins(5),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            on_empty: EmptyAnswerPolicy::Keep,
            max_answers: 1_000,
            allowed_networks: Arc::default(),
        }
    }
}

/// A kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DnsRecordType {
    A,
    Aaaa,
    Srv,
}

impl DnsRecordType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        [Self::A, Self::Aaaa, Self::Srv].into_iter().find(|one| one.as_str() == word)
    }
}

/// One thing to ask of DNS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LookupQuestion {
    pub name: Arc<str>,
    pub record_type: DnsRecordType,
}

/// A target of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SrvTarget {
    pub priority: u16,
    /// Its share among its like.
    pub weight: u16,
    pub target: Arc<str>,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupRecords {
    /// Addresses of a host.
    Addresses(Vec<IpAddr>),
    /// Targets of a service.
    SrvTargets(Vec<SrvTarget>),
}

impl LookupRecords {
    fn len(&self) -> usize {
        match self {
            Self::Addresses(all) => all.len(),
            Self::SrvTargets(all) => all.len(),
        }
    }

    /// In order, without what is there twice or can be no endpoint, and no more than `at_most`; and how
    /// many were left out.
    fn normalise(self, max_records: usize) -> (Self, usize) {
        let before = self.len();
        let tidy = match self {
            Self::Addresses(mut all) => {
                all.sort_unstable();
                all.dedup();
                // A name that is blocked is often said to be at 0.0.0.0, which would be this machine.
                all.retain(|ip| {
                    let ip = ip.to_canonical();
                    !ip.is_unspecified() && !ip.is_multicast()
                });
                all.truncate(max_records);
                Self::Addresses(all)
            }
            Self::SrvTargets(mut all) => {
                all.sort_unstable();
                all.dedup();
                // RFC 2782: the root as a target says that the service is not there.
                all.retain(|one| !one.target.trim_end_matches('.').is_empty() && one.port > 0);
                all.truncate(max_records);
                Self::SrvTargets(all)
            }
        };
        let omitted_count = before - tidy.len();
        (tidy, omitted_count)
    }
}

/// How DNS says that there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NegativeReason {
    /// The name does not exist.
    NxDomain,
    /// The name exists, but has no such records.
    NoData,
    /// It has some, and none of them may be an endpoint's.
    Forbidden,
}

impl NegativeReason {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NxDomain => "nxdomain",
            Self::NoData => "nodata",
            Self::Forbidden => "forbidden",
        }
    }
}

/// Why there is no answer at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupFailure {
    /// None came in time.
    Timeout,
    /// The servers cannot be reached.
    Unreachable,
    /// SERVFAIL: the server could not find out.
    ServerFailure,
    /// REFUSED: the server does not answer us.
    Refused,
    /// Another error, or an answer that makes no sense.
    Invalid,
    /// How this machine resolves names cannot be found out.
    NoServers,
}

impl LookupFailure {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::ServerFailure => "servfail",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::NoServers => "no_servers",
        }
    }
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupAnswer {
    Found {
        records: LookupRecords,
        /// How long that may be believed.
        ttl: Duration,
    },
    Negative {
        reason: NegativeReason,
        /// How long that may be believed, if it was said.
        ttl: Option<Duration>,
    },
    /// It is not known.
    Failed(LookupFailure),
}

impl LookupAnswer {
    /// The word used in output.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Found { .. } => "found",
            Self::Negative { reason: lack, .. } => lack.as_str(),
            Self::Failed(failure) => failure.as_str(),
        }
    }
}

/// Lookups that may be under way at once; the others wait.
pub const MAX_LOOKUPS_IN_FLIGHT: usize = 64;

/// Where names are not looked up, each stands for so many endpoints.
pub const PLACEHOLDERS_PER_NAME: usize = 2;

/// The topology with made-up endpoints in place of what names stand for: [`STAND_INS`] each.
pub fn with_placeholder_endpoints(declared: &Topology, entries: &[DiscoveryEntry]) -> Topology {
    let mut next = 0u32;
    let pools = declared.pools.iter().map(|pool| {
        let mut pool = PoolSpec::clone(pool);
        for entry in entries.iter().filter(|entry| entry.pool == pool.name) {
            let zones = pool.zones.iter_mut().filter(|zone| zone.locality == entry.place);
            for zone in zones {
                for _ in 0..PLACEHOLDERS_PER_NAME {
                    next += 1;
                    // From 240.0.0.0/4, which nobody has.
                    let ip = std::net::Ipv4Addr::from_bits(0xf000_0000 | (next & 0x0fff_ffff));
                    let address = (ip, 9).into();
                    zone.endpoints.push(EndpointSpec { address, weight: entry.weight });
                }
            }
        }
        Arc::new(pool)
    });
    Topology { pools: pools.collect(), ..declared.clone() }
}

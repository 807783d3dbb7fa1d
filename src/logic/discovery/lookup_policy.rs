//! The settings of lookups.

use std::sync::Arc;
use std::time::Duration;

use super::lookup_answer::DnsRecordType;
use crate::logic::model::network::Network;

/// The address families to look up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressFamily {
    #[default]
    Both,
    Ipv4,
    Ipv6,
}

impl AddressFamily {
    /// The record types of the family.
    pub fn record_types(self) -> &'static [DnsRecordType] {
        match self {
            Self::Both => &[DnsRecordType::A, DnsRecordType::Aaaa],
            Self::Ipv4 => &[DnsRecordType::A],
            Self::Ipv6 => &[DnsRecordType::Aaaa],
        }
    }
}

/// The treatment of endpoints whose name has no records any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyAnswerPolicy {
    /// Endpoints stay as long as probes and traffic succeed: an emptied zone file is far more often
    /// a mistake than an intent.
    #[default]
    Keep,
    /// Endpoints are removed at once.
    Remove,
}

/// The settings of lookups (`dns` in the file).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupPolicy {
    pub family: AddressFamily,
    /// Lower bound of the interval, whatever the TTL.
    pub min_ttl: Duration,
    pub max_ttl: Duration,
    /// Interval after a failed or empty lookup; each further one doubles it.
    pub retry_min: Duration,
    /// Upper bound of the doubled interval.
    pub retry_max: Duration,
    pub on_empty: EmptyAnswerPolicy,
    /// Upper bound on addresses or targets per answer; the rest is ignored.
    pub max_answers: usize,
    /// Networks whose addresses may be endpoints although they are loopback or link-local.
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

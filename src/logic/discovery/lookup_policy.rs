//! The policy of lookups (`dns` in the file).

use std::sync::Arc;
use std::time::Duration;

use super::lookup_answer::DnsRecordType;
use crate::logic::model::network::Network;

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

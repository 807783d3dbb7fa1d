//! DNS questions and answers, independent of the wire format.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The DNS record types that discovery queries.
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
        [Self::A, Self::Aaaa, Self::Srv]
            .into_iter()
            .find(|record_type| record_type.as_str() == word)
    }
}

/// A question to DNS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LookupQuestion {
    pub name: Arc<str>,
    pub record_type: DnsRecordType,
}

/// A target of a service (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SrvTarget {
    pub priority: u16,
    /// Relative share among the targets of the same priority.
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
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Addresses(all) => all.len(),
            Self::SrvTargets(all) => all.len(),
        }
    }

    /// Sorts and deduplicates the records, removes unusable ones, and keeps at most `max_records`.
    /// Also returns the number of removed records.
    pub(super) fn normalise(self, max_records: usize) -> (Self, usize) {
        let before = self.len();
        let normalised = match self {
            Self::Addresses(mut all) => {
                all.sort_unstable();
                all.dedup();
                // Blocking resolvers answer with 0.0.0.0, which would be this machine.
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
                // RFC 2782: the root as target means that the service is not available.
                all.retain(|target| {
                    !target.target.trim_end_matches('.').is_empty() && target.port > 0
                });
                all.truncate(max_records);
                Self::SrvTargets(all)
            }
        };
        let omitted_count = before - normalised.len();
        (normalised, omitted_count)
    }
}

/// The kind of negative answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NegativeReason {
    /// NXDOMAIN: the name does not exist.
    NxDomain,
    /// NODATA: the name exists but has no records of the type.
    NoData,
    /// All records are addresses that may not be endpoints.
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

/// The reason why a lookup has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupFailure {
    /// No answer in time.
    Timeout,
    /// The servers cannot be reached.
    Unreachable,
    /// SERVFAIL: the server failed to resolve the name.
    ServerFailure,
    /// REFUSED: the server does not answer this client.
    Refused,
    /// Another error, or an invalid answer.
    Invalid,
    /// The resolver configuration of this machine could not be read.
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

/// The result of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupAnswer {
    Found {
        records: LookupRecords,
        /// Validity of the records.
        ttl: Duration,
    },
    Negative {
        reason: NegativeReason,
        /// Validity of the negative answer, if the SOA record states one (RFC 2308).
        ttl: Option<Duration>,
    },
    /// The lookup failed, so nothing is known.
    Failed(LookupFailure),
}

impl LookupAnswer {
    /// The word used in output.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Found { .. } => "found",
            Self::Negative { reason, .. } => reason.as_str(),
            Self::Failed(failure) => failure.as_str(),
        }
    }
}

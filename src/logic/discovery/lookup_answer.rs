//! DNS questions and answers, independent of the wire format.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

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
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Addresses(all) => all.len(),
            Self::SrvTargets(all) => all.len(),
        }
    }

    /// In order, without what is there twice or can be no endpoint, and no more than `at_most`; and how
    /// many were left out.
    pub(super) fn normalise(self, max_records: usize) -> (Self, usize) {
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

//! The state that a process hands to its successor: verdicts, and the evidence for them.
//!
//! Evidence keeps its age, and the new process probes at once. Identities of endpoints are each
//! process's own: an endpoint is recognised by the name of its pool and its address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::health::endpoint_health::Health;
use crate::logic::health::recovery::{FlapHistory, Ramp};
use crate::logic::model::id::Locality;
use crate::logic::model::outcome::Failure;

use super::endpoint::evidence_history::EvidenceRecord;
use super::endpoint::state::WithheldReason;
use super::zones::correlation::ZoneVerdict;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthExport {
    pub pools: Vec<PoolHealthExport>,
}

/// The state of one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolHealthExport {
    pub name: Arc<str>,
    /// Probes fail in much of it while traffic succeeds: they are ignored.
    pub is_diverging: bool,
    pub zones: Vec<ZoneHealthExport>,
}

/// The state of one zone of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneHealthExport {
    pub place: Locality,
    /// Whether it is down as a whole.
    pub verdict: ZoneVerdict,
    /// How often its verdict went down recently.
    pub flaps: FlapHistory,
    /// Its share, if that grows back.
    pub ramp: Ramp,
    /// The 99.9th percentile of the latencies in its region.
    pub latency_p999: Option<Duration>,
    /// Its endpoints that are not unknown.
    pub endpoints: Vec<EndpointHealthExport>,
}

/// The state of one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointHealthExport {
    pub address: SocketAddr,
    /// The verdict of probes and failed connections.
    pub health: Health,
    /// The verdict of traffic.
    pub outlier: OutlierExport,
    /// When the verdict last changed.
    pub since: Instant,
    /// The last proof of life, by probe or by traffic. Without one an endpoint does not serve.
    pub last_success: Option<Instant>,
    /// It does not return before then.
    pub held_until: Option<Instant>,
    /// How often its verdict went down recently.
    pub flaps: FlapHistory,
    /// Its share, if that grows back.
    pub ramp: Ramp,
    /// The time at which its zone went down; it has not passed a probe since.
    pub unproven_since: Option<Instant>,
    /// Its own responses request less weight.
    pub is_degraded: bool,
    /// Its probes fail for good while its traffic succeeds.
    pub is_contradicted: bool,
    /// The reason why a due verdict was withheld.
    pub withheld: Option<WithheldReason>,
    /// The cause of the verdict, while the verdict is down.
    pub cause: Option<EvidenceRecord>,
    /// The latest evidence against it, oldest first.
    pub evidence: Vec<EvidenceRecord>,
}

/// The verdict of traffic on an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutlierExport {
    Normal,
    /// More requests failed than usual.
    Doubted {
        failure: Failure,
    },
    /// So many failed that it receives trials only.
    Ejected {
        failure: Failure,
        /// No trials before then.
        until: Instant,
    },
}

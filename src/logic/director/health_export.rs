//! What a process leaves to the one that takes over from it: what is believed, and what for.
//!
//! Proof that is inherited is proof: it keeps its age, and its heir looks at once. Identities of
//! endpoints are each process's own; an endpoint is known again by its pool's name and its address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::logic::health::endpoint_health::Health;
use crate::logic::health::recovery::{FlapHistory, Ramp};
use crate::logic::model::id::Locality;
use crate::logic::model::outcome::Failure;

use super::{EvidenceRecord, WithheldReason, ZoneVerdict};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthExport {
    pub pools: Vec<PoolHealthExport>,
}

/// What is believed of one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolHealthExport {
    pub name: Arc<str>,
    /// Probes fail in much of it while traffic succeeds: they are not obeyed.
    pub is_diverging: bool,
    pub zones: Vec<ZoneHealthExport>,
}

/// What is believed of one zone of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneHealthExport {
    pub place: Locality,
    /// Whether it is down as a whole.
    pub verdict: ZoneVerdict,
    /// How often it fell of late.
    pub flaps: FlapHistory,
    /// Its share, if that grows back.
    pub ramp: Ramp,
    /// Those of its endpoints of whom anything is known.
    pub endpoints: Vec<EndpointHealthExport>,
}

/// What is believed of one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointHealthExport {
    pub address: SocketAddr,
    /// By probes and failed connections.
    pub health: Health,
    /// By what requests got.
    pub outlier: OutlierExport,
    /// When that last changed.
    pub since: Instant,
    /// The last proof of life, by probe or by traffic. Without one nobody serves.
    pub last_success: Option<Instant>,
    /// It does not return before then.
    pub held_until: Option<Instant>,
    /// How often it fell of late.
    pub flaps: FlapHistory,
    /// Its share, if that grows back.
    pub ramp: Ramp,
    /// Its zone went down then, and it has not proved since that it is an exception.
    pub unproven_since: Option<Instant>,
    /// It says of itself that it should get less.
    pub is_degraded: bool,
    /// Its probes fail for good while its traffic succeeds.
    pub is_contradicted: bool,
    /// Why a verdict that was due is not obeyed.
    pub withheld: Option<WithheldReason>,
    /// What made the verdict, while it stands.
    pub cause: Option<EvidenceRecord>,
    /// What was held against it of late, oldest first.
    pub evidence: Vec<EvidenceRecord>,
}

/// What requests have shown of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutlierExport {
    /// Nothing is held against it.
    Normal,
    /// More failed than usual.
    Doubted { failure: Failure },
    /// So much failed that it gets trials only.
    Ejected {
        failure: Failure,
        /// No trials before then.
        until: Instant,
    },
}

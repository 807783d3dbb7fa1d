//! The events that the director reports to operators and the ledger.

use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoint::state::WithheldReason;
use crate::logic::health::endpoint_health::{Health, HealthTransition};
use crate::logic::incident::{Incident, IncidentSubject};
use crate::logic::model::id::Locality;
use crate::logic::model::outcome::Failure;
use crate::logic::orders::OperatorOrder;

/// The origin of a piece of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvidenceSource {
    Probe,
    Traffic,
    Correlation,
}

impl EvidenceSource {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Traffic => "traffic",
            Self::Correlation => "correlation",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        [Self::Probe, Self::Traffic, Self::Correlation].into_iter().find(|one| one.as_str() == word)
    }
}

/// The change of an order, and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderChange {
    Given,
    /// An operator revoked it.
    Lifted,
    /// Its validity has ended.
    Expired,
}

impl OrderChange {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Lifted => "lifted",
            Self::Expired => "expired",
        }
    }
}

/// Probes and traffic disagree.
#[derive(Clone, Debug)]
pub enum Divergence {
    /// Probes fail in much of a pool while its traffic succeeds: their verdicts are withheld.
    ProbesFail {
        pool: Arc<str>,
        /// Whether it began or ended.
        is_active: bool,
    },
    /// Probes pass while traffic fails: the verdict of traffic applies.
    TrafficFails { subject: Arc<IncidentSubject>, failure: Failure },
}

/// A change that is reported to operators.
#[derive(Clone, Debug)]
pub enum Event {
    /// The verdict on an endpoint changed.
    HealthChanged { subject: Arc<IncidentSubject>, change: HealthTransition, health: Health },
    /// The verdict on an endpoint was taken over from another process.
    HealthImported { subject: Arc<IncidentSubject>, health: Health },
    /// The verdict on a zone changed.
    ZoneVerdictChanged {
        pool: Arc<str>,
        place: Locality,
        /// The failure, and the number of endpoints whose connections failed; `None` if up again.
        verdict: Option<(Failure, u32)>,
    },
    /// A verdict was due and is withheld.
    VerdictWithheld {
        subject: Arc<IncidentSubject>,
        /// The failure that made it due.
        failure: Failure,
        reason: WithheldReason,
    },
    /// Probes and traffic disagree.
    Divergence(Divergence),
    /// Probes end without evidence for lack of this process's own resources, or no longer do.
    ProbingImpaired {
        /// Whether it began or ended.
        is_active: bool,
    },
    /// A verdict began an incident.
    IncidentBegan(Box<Incident>),
    /// An endpoint has returned, or left the configuration.
    IncidentEnded(Box<Incident>),
    /// A zone or an endpoint has its whole share again.
    RampEnded {
        pool: Arc<str>,
        place: Locality,
        /// The endpoint; `None` for all of the zone.
        address: Option<SocketAddr>,
    },
    /// The order of regions of a pool that steers by latency has changed; the lowest comes first.
    RegionOrderChanged { pool: Arc<str>, order: Vec<Arc<str>> },
    /// An order was given, lifted or has expired.
    OrderChanged { order: OperatorOrder, change: OrderChange },
    /// Too little in the pool is healthy, or enough is again.
    Panic {
        pool: Arc<str>,
        /// Whether it began or ended.
        is_active: bool,
    },
}

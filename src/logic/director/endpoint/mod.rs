//! The state machine of one endpoint: everything that the director stores about it.
//!
//! Inputs are evidence ([`EndpointMachine::apply_evidence`]), decisions of the other machines
//! (ejection, fall of the zone, orders) and changes of the configuration. Outputs are the verdict
//! and its transitions, the period of its probes and its impact on clients. The parts are machines
//! of their own: [`EndpointState`], [`EndpointProbes`], [`EndpointRatio`] and [`EvidenceHistory`].

pub(crate) mod evidence_history;
pub(crate) mod location;
pub(crate) mod probe_history;
pub(crate) mod probes;
pub(crate) mod share_ramp;
pub(crate) mod slab;
pub(crate) mod state;
mod transitions;
mod view;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::EvidenceSource;
use super::health_export::{EndpointHealthExport, OutlierExport};
use super::outlier::ratios::EndpointRatio;
use super::outlier::state::{Ejection, EjectionStage, OutlierState};
use crate::logic::health::evidence::Evidence;
use crate::logic::health::failure_ratio::SUSPECT_SCORE;
use crate::logic::incident::IncidentSubject;
use crate::logic::model::id::EndpointId;
use crate::logic::model::snapshot::{EndpointStats, FailoverCounts};
use crate::logic::model::topology::PoolSpec;
use evidence_history::EvidenceHistory;
use location::EndpointLocation;
use probes::EndpointProbes;
use share_ramp::ShareRamp;
use state::{EndpointState, ServiceConditions, ZoneRecovery};

#[derive(Debug)]
pub(crate) struct EndpointMachine {
    id: EndpointId,
    address: SocketAddr,
    location: EndpointLocation,
    pool: Arc<PoolSpec>,
    stats: Arc<EndpointStats>,
    state: EndpointState,
    /// When the verdict last changed.
    since: Instant,
    up_since: Option<Instant>,
    last_pass: Option<Instant>,
    ramp: ShareRamp,
    traits: EndpointTraits,
    probes: EndpointProbes,
    ratio: EndpointRatio,
    history: EvidenceHistory,
    impact: ImpactBaseline,
}

/// Traits of an endpoint that are independent of its state. None of these follows from the state or
/// from another trait, so none can be data of a variant.
#[derive(Clone, Copy, Debug)]
struct EndpointTraits {
    grade: AnswerGrade,
    agreement: ProbeAgreement,
    origin: HealthOrigin,
    membership: Membership,
    report: TransitionReport,
}

/// Whether the endpoint's own response requests less weight; an endpoint that is down may do so
/// too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerGrade {
    Normal,
    Degraded,
}

/// Whether its probes contradict its traffic: they fail definitively while requests succeed. The
/// pool counts these, whatever verdict follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProbeAgreement {
    Consistent,
    Contradicted,
}

/// Which process observed its state. An imported state is confirmed by the first pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HealthOrigin {
    Observed,
    Imported,
}

/// Whether it joined a pool that served already: then it is no lost capacity while it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    Original,
    LateAddition,
}

/// Whether its last transition has been reported. Those of a zone's fall are reported after the
/// publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransitionReport {
    Done,
    Pending,
}

/// The counters as they stood at the last proof of life: later failures belong to the current
/// incident.
#[derive(Clone, Copy, Debug, Default)]
struct ImpactBaseline {
    counts: FailoverCounts,
    last_failure_us: u64,
}

/// A piece of evidence, with its source and the time at which its probe or request began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DatedEvidence {
    evidence: Evidence,
    source: EvidenceSource,
    began: Instant,
}

impl DatedEvidence {
    pub(crate) fn new(evidence: Evidence, source: EvidenceSource, began: Instant) -> Self {
        Self { evidence, source, began }
    }

    pub(crate) fn evidence(self) -> Evidence {
        self.evidence
    }

    pub(crate) fn source(self) -> EvidenceSource {
        self.source
    }

    pub(crate) fn began(self) -> Instant {
        self.began
    }
}

impl EndpointMachine {
    pub(crate) fn new(
        (id, address): (EndpointId, SocketAddr),
        location: EndpointLocation,
        pool: &Arc<PoolSpec>,
        is_late_addition: bool,
        now: Instant,
    ) -> Self {
        Self {
            id,
            address,
            location,
            pool: Arc::clone(pool),
            stats: Arc::default(),
            state: EndpointState::NEW,
            since: now,
            up_since: None,
            last_pass: None,
            ramp: ShareRamp::Full,
            traits: EndpointTraits {
                grade: AnswerGrade::Normal,
                agreement: ProbeAgreement::Consistent,
                origin: HealthOrigin::Observed,
                membership: match is_late_addition {
                    true => Membership::LateAddition,
                    false => Membership::Original,
                },
                report: TransitionReport::Done,
            },
            probes: EndpointProbes::new(pool.probes.len(), now),
            ratio: EndpointRatio::new(now),
            history: EvidenceHistory::default(),
            impact: ImpactBaseline::default(),
        }
    }

    /// Applies a new configuration; health, counters and history stay.
    pub(crate) fn reconfigure(
        &mut self,
        location: EndpointLocation,
        pool: &Arc<PoolSpec>,
        now: Instant,
    ) {
        let (probes_changed, detect_changed) =
            (self.pool.probes != pool.probes, self.pool.detect != pool.detect);
        self.location = location;
        self.pool = Arc::clone(pool);
        if probes_changed {
            self.probes.resize(pool.probes.len(), now);
        } else if detect_changed {
            self.reschedule_probes(now, false);
        }
    }

    /// Imports the state that another process exported.
    pub(crate) fn import(&mut self, export: EndpointHealthExport, is_moved: bool, now: Instant) {
        let traffic = match export.outlier {
            OutlierExport::Normal => OutlierState::Normal,
            OutlierExport::Doubted { failure } => {
                self.ratio.restart(SUSPECT_SCORE);
                OutlierState::Doubted { failure }
            }
            OutlierExport::Ejected { failure, until } => {
                OutlierState::Ejected(Ejection::held(failure, until))
            }
        };
        let zone = match export.unproven_since {
            Some(since) if !is_moved => ZoneRecovery::Unproven(since),
            _ => ZoneRecovery::Independent,
        };
        let conditions = ServiceConditions::new(traffic, zone, export.withheld);
        self.state = EndpointState::from_parts(export.health, conditions);
        self.since = export.since;
        self.last_pass = export.last_success;
        if self.can_serve() {
            self.up_since = Some(now);
        }
        self.ramp = export.ramp.into();
        self.set_degraded(export.is_degraded);
        self.traits.origin = HealthOrigin::Imported;
        if export.is_contradicted {
            self.traits.agreement = ProbeAgreement::Contradicted;
        }
        self.history.import(export.cause, export.evidence, export.flaps, export.held_until);
    }

    /// The state for export to another process.
    pub(crate) fn export(&self, epoch: Instant) -> EndpointHealthExport {
        EndpointHealthExport {
            address: self.address,
            health: self.state.probe_verdict(),
            outlier: match self.state.outlier() {
                OutlierState::Normal => OutlierExport::Normal,
                OutlierState::Doubted { failure } => OutlierExport::Doubted { failure },
                OutlierState::Ejected(ejection) => OutlierExport::Ejected {
                    failure: ejection.failure(),
                    until: match ejection.stage() {
                        EjectionStage::Held { until } => until,
                        EjectionStage::OnTrial { waiting_since, .. } => waiting_since,
                    },
                },
            },
            since: self.since,
            last_success: self.last_success(epoch),
            held_until: self.history.held_until(),
            flaps: self.history.flaps(),
            ramp: self.ramp.ramp(),
            unproven_since: match self.state.zone_recovery() {
                ZoneRecovery::Independent => None,
                ZoneRecovery::Unproven(since) => Some(since),
            },
            is_degraded: self.is_degraded(),
            is_contradicted: self.is_contradicted(),
            withheld: self.state.withheld(),
            cause: self.history.cause(),
            evidence: self.history.evidence().copied().collect(),
        }
    }

    pub(crate) fn id(&self) -> EndpointId {
        self.id
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn location(&self) -> EndpointLocation {
        self.location
    }

    pub(crate) fn set_weight(&mut self, weight: u32) {
        self.location = self.location.with_weight(weight);
    }

    /// The configuration of its pool.
    pub(crate) fn pool(&self) -> &Arc<PoolSpec> {
        &self.pool
    }

    pub(crate) fn stats(&self) -> &Arc<EndpointStats> {
        &self.stats
    }

    pub(crate) fn state(&self) -> EndpointState {
        self.state
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn up_since(&self) -> Option<Instant> {
        self.up_since
    }

    pub(crate) fn probes(&self) -> &EndpointProbes {
        &self.probes
    }

    pub(crate) fn probes_mut(&mut self) -> &mut EndpointProbes {
        &mut self.probes
    }

    pub(crate) fn ratio(&self) -> &EndpointRatio {
        &self.ratio
    }

    pub(crate) fn ratio_mut(&mut self) -> &mut EndpointRatio {
        &mut self.ratio
    }

    pub(crate) fn history(&self) -> &EvidenceHistory {
        &self.history
    }

    pub(crate) fn history_mut(&mut self) -> &mut EvidenceHistory {
        &mut self.history
    }

    pub(crate) fn ramp(&self) -> ShareRamp {
        self.ramp
    }

    /// Its name for operators and the ledger. It is built on request, because that is rare.
    pub(crate) fn subject(&self) -> Arc<IncidentSubject> {
        Arc::new(IncidentSubject {
            endpoint: self.id,
            pool: Arc::clone(&self.pool.name),
            locality: self.pool.zones[self.location.zone()].locality.clone(),
            address: self.address,
        })
    }
}

fn instant_at(epoch: Instant, us: u64) -> Option<Instant> {
    (us > 0).then(|| epoch + Duration::from_micros(us))
}

//! What the director keeps of one endpoint.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::logic::health::endpoint_health::{Health, HealthTransition};
use crate::logic::health::failure_ratio::FailureRatioTest;
use crate::logic::health::recovery::{FlapHistory, Ramp};
use crate::logic::incident::IncidentImpact;
use crate::logic::incident::IncidentSubject;
use crate::logic::model::endpoint_stats::AttemptCounts;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::Failure;
use crate::logic::model::snapshot::{EndpointStats, FailoverCounts};
use crate::logic::model::topology::PoolSpec;
use crate::logic::probing::probe::ProbeRole;
use crate::logic::probing::probe_schedule;
use crate::logic::probing::probe_schedule::ProbeTimer;

use super::EvidenceSource;
use super::orders::EndpointOrders;
use super::outlier::OutlierState;
use super::probe_history::ProbeHistory;

/// Pieces of evidence against an endpoint that are kept for `explain`.
pub(super) const EVIDENCE_HISTORY_LEN: usize = 4;

/// Where an endpoint sits in the topology.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndpointLocation {
    pub(super) pool: usize,
    pub(super) zone: usize,
    /// Its place among the zone's endpoints.
    pub(super) position: u32,
    pub(super) weight: u32,
}

/// One probe of an endpoint.
#[derive(Clone, Debug)]
pub(super) struct ProbeCheck {
    pub(super) timer: ProbeTimer,
    /// It has passed since the last piece of evidence was put to the verdict machine.
    pub(super) has_passed: bool,
}

/// Why an endpoint with enough strikes is still in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithheldReason {
    /// The eviction budget is spent.
    Budget,
    /// Probes fail in much of the pool while traffic succeeds.
    Divergence,
}

impl WithheldReason {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Divergence => "divergence",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        [Self::Budget, Self::Divergence].into_iter().find(|one| one.as_str() == word)
    }
}

/// A piece of evidence against an endpoint, and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvidenceRecord {
    /// When it was weighed.
    pub at: Instant,
    pub source: EvidenceSource,
    pub failure: Failure,
}

/// Where an endpoint stands with its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZoneRecovery {
    /// It is judged by its own deeds.
    Independent,
    /// The zone went down then, and it has not proved since that it is an exception.
    Unproven(Instant),
}

/// What most endpoints never have: what is remembered against one, and what is ordered of it.
#[derive(Debug, Default)]
pub(super) struct RareState {
    pub(super) evidence: VecDeque<EvidenceRecord>,
    /// What made the verdict, for as long as it stands.
    pub(super) cause: Option<EvidenceRecord>,
    pub(super) last_strike: Option<Instant>,
    /// The first failure of a connection in the running row of strikes.
    pub(super) first_connection_failure: Option<Instant>,
    pub(super) flaps: FlapHistory,
    pub(super) held_until: Option<Instant>,
    /// When its live counters are looked at again.
    pub(super) outlier_check_at: Option<Instant>,
    /// What operators have ordered.
    pub(super) operator_orders: Option<Box<EndpointOrders>>,
}

#[derive(Debug)]
pub(super) struct EndpointState {
    pub(super) checks: SmallVec<[ProbeCheck; 1]>,
    /// The entry in the director's timer queue.
    pub(super) scheduled_at: Option<Instant>,
    /// By probes and failures of connections.
    pub(super) health: Health,
    pub(super) withheld: Option<WithheldReason>,
    /// A probe fails for good while traffic succeeds.
    pub(super) is_contradicted: bool,
    pub(super) is_degraded: bool,
    /// What is known of it was found out by another process.
    pub(super) is_imported: bool,
    /// It is back, and the first request is on its way to nobody yet.
    pub(super) is_awaiting_first_request: bool,
    /// It joined a pool that others served already.
    pub(super) is_late_addition: bool,
    /// It has fallen with its zone, and nobody has been told; see [`super::zones::Fall`].
    pub(super) is_report_pending: bool,
    /// By what requests got.
    pub(super) outlier: OutlierState,
    pub(super) zone_recovery: ZoneRecovery,
    rare: Option<Box<RareState>>,
    pub(super) pool: Arc<PoolSpec>,
    pub(super) stats: Arc<EndpointStats>,
    pub(super) location: EndpointLocation,
    pub(super) id: EndpointId,
    pub(super) address: SocketAddr,
    pub(super) up_since: Option<Instant>,
    pub(super) last_pass: Option<Instant>,
    /// The counters as they stood at the last proof of life: what came after belongs to what is
    /// happening now.
    baseline: FailoverCounts,
    baseline_failure_us: u64,
    pub(super) probe_history: ProbeHistory,
    pub(super) since: Instant,
    pub(super) ramp: Ramp,
    pub(super) ratio: FailureRatioTest,
    /// What has been weighed of its live counters.
    pub(super) evaluated_attempts: AttemptCounts,
}

impl EndpointState {
    pub(super) fn new(
        (id, address): (EndpointId, SocketAddr),
        location: EndpointLocation,
        pool: &Arc<PoolSpec>,
        now: Instant,
    ) -> Self {
        let check = |_| ProbeCheck { timer: ProbeTimer::new(now), has_passed: false };
        Self {
            id,
            address,
            location,
            pool: Arc::clone(pool),
            health: Health::NEW,
            outlier: OutlierState::Normal,
            zone_recovery: ZoneRecovery::Independent,
            withheld: None,
            is_contradicted: false,
            is_degraded: false,
            is_imported: false,
            is_awaiting_first_request: false,
            is_late_addition: false,
            is_report_pending: false,
            ratio: FailureRatioTest::new(now),
            evaluated_attempts: AttemptCounts::default(),
            checks: pool.probes.iter().map(check).collect(),
            scheduled_at: None,
            stats: Arc::default(),
            up_since: None,
            since: now,
            ramp: Ramp::Full,
            probe_history: ProbeHistory::default(),
            rare: None,
            last_pass: None,
            baseline: FailoverCounts::default(),
            baseline_failure_us: 0,
        }
    }

    /// Takes over what a new configuration says; health, counters and history stay.
    pub(super) fn reconfigure(
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
            let fresh = ProbeCheck { timer: ProbeTimer::new(now), has_passed: false };
            self.checks.resize(pool.probes.len(), fresh);
            self.checks.iter_mut().for_each(|check| check.timer.probe_now(now));
        } else if detect_changed {
            self.reschedule_probes(now, false);
        }
    }

    /// What operators are told of it. Made when it is asked for, because that is seldom.
    pub(super) fn subject(&self) -> Arc<IncidentSubject> {
        Arc::new(IncidentSubject {
            endpoint: self.id,
            pool: Arc::clone(&self.pool.name),
            locality: self.pool.zones[self.location.zone].locality.clone(),
            address: self.address,
        })
    }

    /// What is believed of it, by all evidence together.
    pub(super) fn verdict(&self) -> Health {
        match (self.health, self.outlier) {
            (Health::Up | Health::Suspect { .. }, OutlierState::Ejected(case)) => {
                Health::Down { failure: case.failure }
            }
            (Health::Up, OutlierState::Doubted { failure }) => {
                Health::Suspect { strikes: 1, failure }
            }
            (health, _) => health,
        }
    }

    /// Up, with nothing at all against it that a pass could end.
    pub(super) fn is_fully_healthy(&self) -> bool {
        self.health == Health::Up
            && self.outlier == OutlierState::Normal
            && self.zone_recovery == ZoneRecovery::Independent
            && self.withheld.is_none()
            && self.first_connection_failure().is_none()
            && !self.is_contradicted
            && !self.is_imported
    }

    pub(super) fn can_serve(&self) -> bool {
        self.verdict().can_serve(self.pool.is_optimistic)
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.health, Health::Unknown { .. })
    }

    /// Who is down, and for what.
    pub(super) fn down_failure(&self) -> Option<(EndpointId, Failure)> {
        match self.verdict() {
            Health::Down { failure } | Health::Returning { failure, .. } => {
                Some((self.id, failure))
            }
            Health::Unknown { .. } | Health::Up | Health::Suspect { .. } => None,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.down_failure().is_some()
    }

    pub(super) fn has_been_up(&self) -> bool {
        self.up_since.is_some()
    }

    /// Whether it could return at once, if its zone did.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        match self.health {
            Health::Up | Health::Suspect { .. } => match self.outlier {
                OutlierState::Ejected(case) => case.is_proven(now),
                OutlierState::Normal | OutlierState::Doubted { .. } => {
                    self.zone_recovery == ZoneRecovery::Independent
                }
            },
            Health::Returning { passes, .. } => {
                passes >= self.pool.detect.up_after && !self.is_held_down(now)
            }
            Health::Unknown { .. } | Health::Down { .. } => false,
        }
    }

    pub(super) fn is_held_down(&self, now: Instant) -> bool {
        self.held_until().is_some_and(|until| now < until)
    }

    pub(super) fn gate_probes(&self) -> impl Iterator<Item = usize> + '_ {
        let probes = self.pool.probes.iter().enumerate();
        probes.filter(|(_, probe)| probe.role == ProbeRole::Gate).map(|(index, _)| index)
    }

    /// The period of the steady row in the present state.
    pub(super) fn probe_period(&self, in_panic: bool) -> Duration {
        let detect = &self.pool.detect;
        match self.health {
            Health::Up if self.outlier == OutlierState::Normal => detect.interval,
            // In panic every endpoint has requests to lose.
            Health::Down { .. } if in_panic => detect.fast_interval,
            Health::Down { .. } => detect.down_interval,
            Health::Up => detect.fast_interval,
            health => probe_schedule::probe_period(health, detect),
        }
    }

    pub(super) fn reschedule_probes(&mut self, now: Instant, in_panic: bool) {
        let period = self.probe_period(in_panic);
        self.checks.iter_mut().for_each(|check| check.timer.apply_period(now, period));
    }

    /// When it is to be looked at next.
    pub(super) fn next_probe_at(&self) -> Option<Instant> {
        self.checks.iter().filter_map(|check| check.timer.due()).min()
    }

    /// What is remembered against it; there is room for it from now on.
    pub(super) fn rare_mut(&mut self) -> &mut RareState {
        self.rare.get_or_insert_default()
    }

    pub(super) fn last_strike(&self) -> Option<Instant> {
        self.rare.as_ref()?.last_strike
    }

    pub(super) fn first_connection_failure(&self) -> Option<Instant> {
        self.rare.as_ref()?.first_connection_failure
    }

    pub(super) fn held_until(&self) -> Option<Instant> {
        self.rare.as_ref()?.held_until
    }

    pub(super) fn flaps(&self) -> FlapHistory {
        self.rare.as_ref().map(|trouble| trouble.flaps).unwrap_or_default()
    }

    /// What operators have ordered.
    pub(super) fn operator_orders(&self) -> Option<&EndpointOrders> {
        self.rare.as_ref()?.operator_orders.as_deref()
    }

    /// What made the verdict, while it stands.
    pub(super) fn cause(&self) -> Option<EvidenceRecord> {
        self.rare.as_ref()?.cause
    }

    /// The last pieces of evidence against it, oldest first.
    pub(super) fn evidence(&self) -> impl Iterator<Item = &EvidenceRecord> {
        self.rare.iter().flat_map(|trouble| &trouble.evidence)
    }

    /// Remembers a piece of evidence. What comes after a verdict must not push out what led to it.
    pub(super) fn record_evidence(
        &mut self,
        now: Instant,
        source: EvidenceSource,
        failure: Failure,
    ) {
        let rare = self.rare_mut();
        if rare.cause.is_some() {
            return;
        }
        if rare.evidence.len() >= EVIDENCE_HISTORY_LEN {
            rare.evidence.pop_front();
        }
        rare.evidence.push_back(EvidenceRecord { at: now, source, failure });
    }

    /// The same for what makes the verdict.
    pub(super) fn record_cause(&mut self, now: Instant, source: EvidenceSource, failure: Failure) {
        self.record_evidence(now, source, failure);
        self.rare_mut().cause = Some(EvidenceRecord { at: now, source, failure });
    }

    /// A probe that began at `began` passed.
    pub(super) fn on_probe_pass(&mut self, probe_started: Instant) {
        self.last_pass = Some(probe_started);
        self.is_contradicted = false;
        if matches!(self.zone_recovery, ZoneRecovery::Unproven(since) if probe_started >= since) {
            self.zone_recovery = ZoneRecovery::Independent;
        }
    }

    /// While it is up, what requests met before a pass has nothing to do with what comes after.
    pub(super) fn reset_traffic_baseline(&mut self) {
        if self.verdict() == Health::Up {
            self.baseline = self.stats.failover_counts();
            self.baseline_failure_us = self.stats.last_failure_us();
            self.stats.reset_client_failures();
        }
    }

    pub(super) fn on_health_change(&mut self, change: HealthTransition, now: Instant) {
        if change != HealthTransition::None {
            self.since = now;
        }
        if change == HealthTransition::Restored
            && let Some(rare) = &mut self.rare
        {
            rare.cause = None;
        }
    }

    /// When live traffic was last answered well.
    pub(super) fn last_response(&self, epoch: Instant) -> Option<Instant> {
        instant_at(epoch, self.stats.last_good_us())
    }

    /// The last proof of life, by probe or by traffic.
    pub(super) fn last_success(&self, epoch: Instant) -> Option<Instant> {
        self.last_pass.max(self.last_response(epoch))
    }

    /// What requests saw since the last proof of life while up.
    pub(super) fn incident_impact(&self, epoch: Instant) -> IncidentImpact {
        let all = self.stats.failover_counts();
        let counts = FailoverCounts {
            failed: all.failed - self.baseline.failed,
            rescued: all.rescued - self.baseline.rescued,
            late: all.late - self.baseline.late,
        };
        let last_us = self.stats.last_failure_us();
        let last_failure =
            if last_us > self.baseline_failure_us { instant_at(epoch, last_us) } else { None };
        IncidentImpact { counts, client_failures: self.stats.client_failures(), last_failure }
    }

    /// What its fastest probe of late took: about a round trip.
    pub(super) fn round_trip(&self, epoch: Instant) -> Option<Duration> {
        self.probe_history.iter(epoch).filter_map(|(_, _, outcome)| outcome.latency()).min()
    }
}

fn instant_at(epoch: Instant, us: u64) -> Option<Instant> {
    (us > 0).then(|| epoch + Duration::from_micros(us))
}

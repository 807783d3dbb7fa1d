//! The machine of one endpoint: all that the director keeps of it.
//!
//! Inputs are evidence ([`EndpointMachine::apply_evidence`]), decisions of the other machines
//! (ejection, fall of the zone, orders) and changes of the configuration. Outputs are the verdict and
//! its transitions, the period of its probes and its impact on clients. The parts are machines of
//! their own: [`EndpointState`], [`EndpointProbes`], [`EndpointRatio`] and [`EvidenceHistory`].

pub(crate) mod evidence_history;
pub(crate) mod location;
pub(crate) mod probe_history;
pub(crate) mod probes;
pub(crate) mod share_ramp;
pub(crate) mod slab;
pub(crate) mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::EvidenceSource;
use super::health_export::{EndpointHealthExport, OutlierExport};
use super::orders::endpoint_orders::{EndpointOrders, OrderedShare};
use super::outlier::ratios::EndpointRatio;
use super::outlier::state::{Ejection, EjectionStage, OutlierState};
use crate::logic::health::endpoint_health::{Health, HealthThresholds, HealthTransition};
use crate::logic::health::evidence::Evidence;
use crate::logic::health::failure_ratio::SUSPECT_SCORE;
use crate::logic::health::recovery::Ramp;
use crate::logic::incident::{IncidentImpact, IncidentSubject};
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::{Failure, ProbeOutcome};
use crate::logic::model::snapshot::{EndpointStats, FailoverCounts};
use crate::logic::model::topology::PoolSpec;
use crate::logic::probing::probe_schedule;
use crate::logic::probing::probe_schedule::ProbeTrigger;
use evidence_history::EvidenceHistory;
use location::EndpointLocation;
use probes::EndpointProbes;
use share_ramp::ShareRamp;
use state::{EndpointState, ServiceConditions, WithheldReason, ZoneRecovery};

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

/// What is true of an endpoint in whatever state it is. None of these follows from the state or
/// from another, so none can be data of a variant.
#[derive(Clone, Copy, Debug)]
struct EndpointTraits {
    grade: AnswerGrade,
    agreement: ProbeAgreement,
    origin: HealthOrigin,
    membership: Membership,
    report: TransitionReport,
}

/// Whether the endpoint's own answer asks for less weight; an endpoint that is down may do so too.
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

    /// Takes over what another process knew of it.
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

    /// What another process needs to take over.
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

    /// How operators and the ledger name it. It is made on request, because that is rare.
    pub(crate) fn subject(&self) -> Arc<IncidentSubject> {
        Arc::new(IncidentSubject {
            endpoint: self.id,
            pool: Arc::clone(&self.pool.name),
            locality: self.pool.zones[self.location.zone()].locality.clone(),
            address: self.address,
        })
    }
}

/// Queries of the verdict and of the traits.
impl EndpointMachine {
    /// The verdict of all evidence together.
    pub(crate) fn verdict(&self) -> Health {
        self.state.verdict()
    }

    /// Whether its probes, and no traffic, decide that it receives nothing.
    pub(crate) fn is_down_by_probes(&self) -> bool {
        !self.state.probe_verdict().can_serve(true)
    }

    /// Up, and a pass would change nothing at all.
    pub(crate) fn is_fully_healthy(&self) -> bool {
        self.state.is_unconditionally_up()
            && self.history.first_connection_failure().is_none()
            && !self.is_contradicted()
            && self.traits.origin == HealthOrigin::Observed
    }

    pub(crate) fn can_serve(&self) -> bool {
        self.verdict().can_serve(self.pool.is_optimistic)
    }

    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.state, EndpointState::Unknown { .. })
    }

    /// What it is down for; `None` if it is not.
    pub(crate) fn down_failure(&self) -> Option<Failure> {
        match self.verdict() {
            Health::Down { failure } | Health::Returning { failure, .. } => Some(failure),
            Health::Unknown { .. } | Health::Up | Health::Suspect { .. } => None,
        }
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down_failure().is_some()
    }

    pub(crate) fn has_been_up(&self) -> bool {
        self.up_since.is_some()
    }

    /// Whether it could return at once, if its zone did.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.state.is_ready(&self.pool, self.is_held_down(now), now)
    }

    pub(crate) fn is_held_down(&self, now: Instant) -> bool {
        self.history.held_until().is_some_and(|until| now < until)
    }

    pub(crate) fn is_degraded(&self) -> bool {
        self.traits.grade == AnswerGrade::Degraded
    }

    pub(crate) fn is_contradicted(&self) -> bool {
        self.traits.agreement == ProbeAgreement::Contradicted
    }

    pub(crate) fn is_late_addition(&self) -> bool {
        self.traits.membership == Membership::LateAddition
    }

    pub(crate) fn is_report_pending(&self) -> bool {
        self.traits.report == TransitionReport::Pending
    }

    /// What orders leave of its share and of its capacity.
    pub(crate) fn ordered_share(&self, now: Instant) -> OrderedShare {
        self.history
            .operator_orders()
            .map_or(OrderedShare::FULL, |orders| orders.ordered_share(now))
    }

    /// Whether an order leaves it nothing: whatever becomes of it then is no failure.
    pub(crate) fn is_drained(&self) -> bool {
        self.history.operator_orders().is_some_and(EndpointOrders::is_drained)
    }

    /// When live traffic was last answered well.
    pub(crate) fn last_response(&self, epoch: Instant) -> Option<Instant> {
        instant_at(epoch, self.stats.last_good_us())
    }

    /// The start of the last probe that passed.
    #[cfg(test)]
    pub(crate) fn last_pass(&self) -> Option<Instant> {
        self.last_pass
    }

    /// The last proof of life, by probe or by traffic.
    pub(crate) fn last_success(&self, epoch: Instant) -> Option<Instant> {
        self.last_pass.max(self.last_response(epoch))
    }

    /// What requests met since the last proof of life while up.
    pub(crate) fn incident_impact(&self, epoch: Instant) -> IncidentImpact {
        let (all, before) = (self.stats.failover_counts(), self.impact.counts);
        let counts = FailoverCounts {
            failed: all.failed - before.failed,
            rescued: all.rescued - before.rescued,
            late: all.late - before.late,
        };
        let last_us = self.stats.last_failure_us();
        let is_new = last_us > self.impact.last_failure_us;
        let last_failure = if is_new { instant_at(epoch, last_us) } else { None };
        IncidentImpact { counts, client_failures: self.stats.client_failures(), last_failure }
    }

    /// The duration of the fastest of its latest probes: about a round trip.
    pub(crate) fn round_trip(&self, epoch: Instant) -> Option<Duration> {
        self.probes.history().iter(epoch).filter_map(|(_, _, outcome)| outcome.latency()).min()
    }

    /// The period of its regular probes in the present state.
    pub(crate) fn probe_period(&self, in_panic: bool) -> Duration {
        let detect = &self.pool.detect;
        match self.state.probe_verdict() {
            Health::Up if self.state.outlier() == OutlierState::Normal => detect.interval,
            // In panic every endpoint has requests to lose.
            Health::Down { .. } if in_panic => detect.fast_interval,
            Health::Down { .. } => detect.down_interval,
            Health::Up => detect.fast_interval,
            health => probe_schedule::probe_period(health, detect),
        }
    }
}

/// Inputs.
impl EndpointMachine {
    /// Applies one piece of evidence; `withheld` is the reason why a verdict that it makes due is not
    /// made. Says whether it ended a contradiction of probes and traffic.
    pub(crate) fn apply_evidence(
        &mut self,
        dated: DatedEvidence,
        thresholds: HealthThresholds,
        withheld: Option<WithheldReason>,
        now: Instant,
    ) -> bool {
        let DatedEvidence { evidence, source, began } = dated;
        let (was_contradicted, hold) = (self.is_contradicted(), self.ejection_hold());
        let transition = self.state.apply(evidence, thresholds);
        match evidence {
            Evidence::Pass => {
                self.on_probe_pass(began);
                self.state.set_withheld(None);
            }
            Evidence::Soft(failure) => {
                self.history.record_strike_time(now);
                self.history.record_evidence(now, source, failure);
            }
            Evidence::Firm(failure) => {
                self.history.record_strike_time(now);
                match transition {
                    HealthTransition::WentDown => self.history.record_cause(now, source, failure),
                    _ => self.history.record_evidence(now, source, failure),
                }
                self.state.set_withheld(withheld);
            }
        }
        self.keep_ejection_hold(hold);
        let is_confirmed = evidence == Evidence::Pass
            && std::mem::replace(&mut self.traits.origin, HealthOrigin::Observed)
                == HealthOrigin::Imported;
        if transition == HealthTransition::Started || is_confirmed {
            let phase = probe_schedule::probe_phase(&self.pool.name, &self.address.to_string());
            self.probes.set_phase(phase, self.pool.detect.interval, now);
        }
        was_contradicted && evidence == Evidence::Pass
    }

    /// Takes the result of a probe; gives the evidence that it is.
    pub(crate) fn finish_probe(
        &mut self,
        probe: u8,
        trigger: ProbeTrigger,
        outcome: ProbeOutcome,
        now: Instant,
    ) -> Option<Evidence> {
        let health = self.state.probe_verdict();
        self.probes.finish((probe, trigger), outcome, health, &self.pool, now)
    }

    /// Records a pass of one probe; says whether all gates have passed. An answer to a probe that
    /// began before the last strike says nothing about now.
    pub(crate) fn complete_pass(&mut self, probe: u8, probe_started: Instant) -> bool {
        let is_outdated = self.history.last_strike().is_some_and(|strike| probe_started < strike);
        self.probes.complete_pass(probe, is_outdated, &self.pool)
    }

    /// Leaves the latest attempts out of the evaluation: they belong to a failure that is over.
    pub(crate) fn skip_new_attempts(&mut self) {
        self.ratio.take_new_attempts(&self.stats);
    }

    /// A probe that began at `probe_started` passed.
    pub(crate) fn on_probe_pass(&mut self, probe_started: Instant) {
        self.last_pass = Some(probe_started);
        self.traits.agreement = ProbeAgreement::Consistent;
        if matches!(self.state.zone_recovery(), ZoneRecovery::Unproven(since) if probe_started >= since)
        {
            self.state.mark_independent();
        }
    }

    /// Sets the grade of its latest answer; says whether that is another.
    pub(crate) fn set_degraded(&mut self, is_degraded: bool) -> bool {
        let grade = if is_degraded { AnswerGrade::Degraded } else { AnswerGrade::Normal };
        std::mem::replace(&mut self.traits.grade, grade) != grade
    }

    /// Its probes contradict its traffic; says whether they did not before.
    pub(crate) fn set_contradicted(&mut self) -> bool {
        std::mem::replace(&mut self.traits.agreement, ProbeAgreement::Contradicted)
            != ProbeAgreement::Contradicted
    }

    /// Back in service, because the verdicts of probes are ignored.
    pub(crate) fn ignore_probes(&mut self) {
        self.state.mark_up();
        self.state.set_withheld(Some(WithheldReason::Divergence));
        self.history.clear_hold_down();
    }

    /// What it met while up and before a pass has nothing to do with what follows.
    pub(crate) fn reset_impact(&mut self) {
        if self.verdict() == Health::Up {
            self.impact = ImpactBaseline {
                counts: self.stats.failover_counts(),
                last_failure_us: self.stats.last_failure_us(),
            };
            self.stats.reset_client_failures();
        }
    }

    /// Draws the consequences of a verdict that was `before` for the endpoint itself; gives the
    /// transition and the verdict.
    pub(crate) fn settle_verdict(
        &mut self,
        before: Health,
        now: Instant,
    ) -> (HealthTransition, Health) {
        let after = self.verdict();
        let transition = HealthTransition::from_states(before, after);
        if transition != HealthTransition::None {
            self.since = now;
        }
        match transition {
            HealthTransition::WentDown => {
                if !self.state.outlier().is_ejected() && self.has_been_up() {
                    self.history.begin_hold_down(&self.pool.recovery, now);
                }
                self.ramp = ShareRamp::Full;
                self.traits.membership = Membership::Original;
                self.probes.cancel_bursts();
            }
            HealthTransition::Restored => {
                self.history.clear_cause();
                self.up_since = Some(now);
                self.ratio.take_new_attempts(&self.stats);
            }
            HealthTransition::Started => self.up_since = Some(now),
            _ => {}
        }
        (transition, after)
    }

    /// Its share grows from now on, and the next retryable request is its first.
    pub(crate) fn start_ramp(&mut self, epoch: Instant, now: Instant) {
        let now_us = now.saturating_duration_since(epoch).as_micros() as u64;
        self.stats.schedule_trials(now_us, u32::MAX);
        self.ramp = ShareRamp::AwaitingFirstRequest { since: now };
    }

    /// Its share grows back from `ramp`. `is_capacity_late` says that its capacity was not missed.
    pub(crate) fn resume_ramp(&mut self, ramp: Ramp, is_capacity_late: bool) {
        self.ramp.continue_as(ramp);
        if is_capacity_late {
            self.traits.membership = Membership::LateAddition;
        }
    }

    /// Moves its ramp on; says whether it still grows.
    pub(crate) fn advance_ramp(&mut self, length: Duration, epoch: Instant, now: Instant) -> bool {
        let now_us = now.saturating_duration_since(epoch).as_micros() as u64;
        self.ramp.advance(length, self.stats.is_trial_due(now_us), now)
    }

    /// Adapts its regular probes to the present state.
    pub(crate) fn reschedule_probes(&mut self, now: Instant, in_panic: bool) {
        self.probes.apply_period(self.probe_period(in_panic), now);
    }

    /// Falls with its zone: a suspect whose connection failed goes down, anything else in service is
    /// unproven. Says whether its requests must leave although it made no verdict of its own.
    pub(crate) fn fall_with_zone(&mut self, source: EvidenceSource, now: Instant) -> bool {
        let hold = self.ejection_hold();
        let is_struck = self.history.first_connection_failure().is_some();
        let own_failure = if is_struck { self.state.fall_as_suspect() } else { None };
        match own_failure {
            Some(failure) => {
                self.history.record_cause(now, source, failure);
                self.keep_ejection_hold(hold);
                false
            }
            None => self.state.mark_unproven(now),
        }
    }

    /// Returns with its zone, if it is ready.
    pub(crate) fn return_with_zone(&mut self, now: Instant) {
        if matches!(self.state, EndpointState::Returning { .. }) && self.is_ready(now) {
            self.state.mark_up();
        }
        self.state.mark_independent();
    }

    pub(crate) fn set_report_pending(&mut self, is_pending: bool) {
        self.traits.report =
            if is_pending { TransitionReport::Pending } else { TransitionReport::Done };
    }

    pub(crate) fn set_outlier(&mut self, outlier: OutlierState) {
        self.state.set_outlier(outlier);
    }

    /// Traffic makes the verdict; gives the end of the hold.
    pub(crate) fn eject(&mut self, failure: Failure, now: Instant) -> Instant {
        let until = self.history.begin_ejection(&self.pool.recovery, now);
        self.state.set_outlier(OutlierState::Ejected(Ejection::held(failure, until)));
        self.history.record_cause(now, EvidenceSource::Traffic, failure);
        until
    }

    /// Returns from an ejection, doubted for the failure that it was ejected for. Says whether it
    /// had been ejected.
    pub(crate) fn uneject(&mut self) -> bool {
        let Some(ejection) = self.state.outlier().ejection() else { return false };
        self.stats.cancel_trials();
        self.ratio.restart(SUSPECT_SCORE);
        self.state.set_outlier(OutlierState::Doubted { failure: ejection.failure() });
        true
    }

    /// The probes see the failure too, and decide from now on. The hold of an ejection stays.
    pub(crate) fn clear_outlier(&mut self) {
        let hold = self.ejection_hold();
        self.state.set_outlier(OutlierState::Normal);
        self.keep_ejection_hold(hold);
        self.stats.cancel_trials();
        self.ratio.take_new_attempts(&self.stats);
        self.ratio.restart(0.0);
    }

    /// The end of the hold of an ejection.
    fn ejection_hold(&self) -> Option<Instant> {
        self.state.outlier().ejection()?.held_until()
    }

    /// Turns the hold of an ejection that has ended into a hold-down.
    fn keep_ejection_hold(&mut self, hold: Option<Instant>) {
        if let Some(until) = hold.filter(|_| !self.state.outlier().is_ejected()) {
            self.history.extend_hold_down(until);
        }
    }
}

fn instant_at(epoch: Instant, us: u64) -> Option<Instant> {
    (us > 0).then(|| epoch + Duration::from_micros(us))
}

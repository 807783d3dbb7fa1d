//! Changes of an endpoint's state.

use super::share_ramp::ShareRamp;
use super::state::{EndpointState, WithheldReason, ZoneRecovery};
use crate::logic::director::event::EvidenceSource;
use crate::logic::director::outlier::state::{Ejection, OutlierState};
use crate::logic::health::endpoint_health::{Health, HealthThresholds, HealthTransition};
use crate::logic::health::evidence::Evidence;
use crate::logic::health::failure_ratio::SUSPECT_SCORE;
use crate::logic::health::recovery::Ramp;
use crate::logic::model::outcome::{Failure, ProbeOutcome};
use crate::logic::probing::probe_schedule;
use crate::logic::probing::probe_schedule::ProbeTrigger;
use std::time::{Duration, Instant};

use super::{
    AnswerGrade, DatedEvidence, EndpointMachine, HealthOrigin, ImpactBaseline, Membership,
    ProbeAgreement, TransitionReport,
};

/// Inputs.
impl EndpointMachine {
    /// Applies one piece of evidence; `withheld` is the reason why a verdict that it makes due is
    /// not made. Returns whether it ended a contradiction of probes and traffic.
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

    /// Handles the result of a probe; returns its evidence.
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

    /// Records a pass of one probe; returns whether all gates have passed. A pass of a probe that
    /// began before the last strike does not count.
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

    /// Sets the grade of its latest response; returns whether it has changed.
    pub(crate) fn set_degraded(&mut self, is_degraded: bool) -> bool {
        let grade = if is_degraded { AnswerGrade::Degraded } else { AnswerGrade::Normal };
        std::mem::replace(&mut self.traits.grade, grade) != grade
    }

    /// Marks that its probes contradict its traffic; returns whether this is new.
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

    /// Evidence from before, while it was up and had no pass, does not concern what follows.
    pub(crate) fn reset_impact(&mut self) {
        if self.verdict() == Health::Up {
            self.impact = ImpactBaseline {
                counts: self.stats.failover_counts(),
                last_failure_us: self.stats.last_failure_us(),
            };
            self.stats.reset_client_failures();
        }
    }

    /// Updates the endpoint itself after a verdict that was `before`; returns the transition and
    /// the verdict.
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

    /// Its share grows back from `ramp`. `is_capacity_late`: its capacity did not count as lost.
    pub(crate) fn resume_ramp(&mut self, ramp: Ramp, is_capacity_late: bool) {
        self.ramp.continue_as(ramp);
        if is_capacity_late {
            self.traits.membership = Membership::LateAddition;
        }
    }

    /// Advances its ramp; returns whether it still grows.
    pub(crate) fn advance_ramp(&mut self, length: Duration, epoch: Instant, now: Instant) -> bool {
        let now_us = now.saturating_duration_since(epoch).as_micros() as u64;
        self.ramp.advance(length, self.stats.is_trial_due(now_us), now)
    }

    /// Adapts its regular probes to the present state.
    pub(crate) fn reschedule_probes(&mut self, now: Instant, in_panic: bool) {
        self.probes.apply_period(self.probe_period(in_panic), now);
    }

    /// Falls with its zone: a suspect whose connection failed goes down, anything else in service
    /// is unproven. Returns whether its requests must leave although it made no verdict of its own.
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

    /// Makes the verdict by traffic; returns the end of the hold.
    pub(crate) fn eject(&mut self, failure: Failure, now: Instant) -> Instant {
        let until = self.history.begin_ejection(&self.pool.recovery, now);
        self.state.set_outlier(OutlierState::Ejected(Ejection::held(failure, until)));
        self.history.record_cause(now, EvidenceSource::Traffic, failure);
        until
    }

    /// Returns from an ejection, doubted for the failure that it was ejected for. Returns whether
    /// it had been ejected.
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

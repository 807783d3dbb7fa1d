//! Verdicts by what requests got: who is doubted, condemned, tried and readmitted.
//!
//! Traffic outranks probes: no passing probe ends a doubt or a sentence. A doubted endpoint gets
//! only requests that can be sent again, a condemned one a single such request from time to time,
//! and comes back when a row of these was answered well.

use std::time::{Duration, Instant};

use crate::logic::health::endpoint_health::Health;
use crate::logic::health::failure_ratio::{
    CLEAR_SCORE, DecayedCounts, SUSPECT_SCORE, VERDICT_SCORE,
};
use crate::logic::model::endpoint_stats::AttemptCounts;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::Failure;

use super::endpoint::EndpointState;
use super::{Director, Event, EvidenceSource};

/// How often the counters of an endpoint are looked at that is doubted or on trial.
const OUTLIER_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Time between two looks for each endpoint that is watched.
const OUTLIER_CHECK_SPACING: Duration = Duration::from_micros(5);

/// Trials that must be answered well, one after the other.
pub(super) const TRIALS_TO_RETURN: u32 = 8;

/// Time between two trials at first.
const TRIAL_GAP_US: u32 = 100_000;

/// Between two trials while they go well, at least.
const TRIAL_GAP_MIN_US: u32 = 2_000;

/// Between two trials while they fail, at most.
const TRIAL_GAP_MAX_US: u32 = 500_000;

/// When nobody has a request that may be tried, an endpoint whose probes pass gets its next chance
/// after this long.
pub(super) const TRIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// What requests have shown of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum OutlierState {
    /// Nothing is held against it.
    Normal,
    /// More failed than usual.
    Doubted { failure: Failure },
    /// So much failed that it gets no more.
    Ejected(Ejection),
}

/// A verdict by traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ejection {
    pub(super) failure: Failure,
    pub(super) stage: EjectionStage,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum EjectionStage {
    /// No trials before then.
    Held { until: Instant },
    /// Tried from time to time.
    OnTrial { consecutive_successes: u32, gap_us: u32, trials_taken: u32, waiting_since: Instant },
}

impl Ejection {
    /// Its trials went well, or nobody had one for so long that it gets its next chance.
    pub(super) fn is_proven(&self, now: Instant) -> bool {
        match self.stage {
            EjectionStage::Held { .. } => false,
            EjectionStage::OnTrial {
                consecutive_successes: good_in_a_row,
                waiting_since: waits_since,
                ..
            } => {
                good_in_a_row >= TRIALS_TO_RETURN
                    || now.saturating_duration_since(waits_since) >= TRIAL_TIMEOUT
            }
        }
    }
}

impl Director {
    /// Looks at what requests got at an endpoint since the last look.
    pub(super) fn evaluate_outlier(
        &mut self,
        id: EndpointId,
        failure: Option<Failure>,
        now: Instant,
    ) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let all = endpoint.stats.collect_attempts();
        let tries = all.since(endpoint.evaluated_attempts);
        endpoint.evaluated_attempts = all;
        let location = endpoint.location;
        let is_evaluated = endpoint.health.can_serve(true);
        if !is_evaluated || tries == AttemptCounts::default() && failure.is_none() {
            // What the probes see, the probes judge.
            return;
        }
        if let OutlierState::Ejected(ejection) = endpoint.outlier {
            // Its trials speak of nobody else.
            return self.update_trials(id, ejection, tries, now);
        }
        let before = endpoint.verdict();
        let pool = &mut self.pools[location.pool];
        pool.recent.decay(now);
        let recent_attempts = endpoint.ratio.recent_part(tries, now);
        let own = {
            endpoint.ratio.decay(now);
            endpoint.ratio.recent()
        };
        let score = endpoint.ratio.apply_evidence(
            tries,
            recent_attempts,
            pool.recent.recent().minus(own),
            now,
        );
        let zone = &mut pool.zones[location.zone];
        zone.ratio.decay(now);
        let elsewhere = pool.recent.recent().minus(zone.ratio.recent());
        let zone_score = zone.ratio.apply_evidence(tries, recent_attempts, elsewhere, now);
        pool.recent.apply_evidence(tries, recent_attempts, DecayedCounts::default(), now);
        match endpoint.outlier {
            OutlierState::Normal if score > SUSPECT_SCORE => {
                if let Some(failure) = failure {
                    endpoint.outlier = OutlierState::Doubted { failure };
                    endpoint.record_evidence(now, EvidenceSource::Traffic, failure);
                }
            }
            OutlierState::Doubted { .. } if score < CLEAR_SCORE => {
                endpoint.outlier = OutlierState::Normal;
            }
            OutlierState::Doubted { .. } => {
                if let Some(failure) = failure {
                    endpoint.outlier = OutlierState::Doubted { failure };
                }
            }
            OutlierState::Normal | OutlierState::Ejected(_) => {}
        }
        let doubted = match endpoint.outlier {
            OutlierState::Doubted { failure } => Some(failure),
            _ => None,
        };
        self.apply_verdict_change(id, before, now);
        if let Some(failure) = doubted {
            self.schedule_outlier_check(id, self.next_outlier_check(now));
            if score > VERDICT_SCORE {
                self.try_eject(id, failure, now);
            }
            if zone_score > VERDICT_SCORE {
                self.try_eject_zone(location.pool, location.zone, failure, now);
            }
        }
    }

    /// When to look again at one of those that are watched: the more they are, the later, so that
    /// looking never takes more than a fraction of a core.
    pub(super) fn next_outlier_check(&self, now: Instant) -> Instant {
        now + OUTLIER_CHECK_INTERVAL.max(OUTLIER_CHECK_SPACING * self.outlier_checks.len() as u32)
    }

    /// Has the counters of an endpoint looked at again.
    pub(super) fn schedule_outlier_check(&mut self, id: EndpointId, at: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        if let Some(old) = endpoint.rare_mut().outlier_check_at.replace(at) {
            self.outlier_checks.remove(&(old, id));
        }
        self.outlier_checks.insert((at, id));
    }

    /// Looks again at those whose time has come.
    pub(super) fn run_outlier_checks(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.outlier_checks.first() {
            if due > now {
                break;
            }
            self.outlier_checks.pop_first();
            let Some(endpoint) = self.endpoints.get_mut(id) else { continue };
            endpoint.rare_mut().outlier_check_at = None;
            match endpoint.outlier {
                OutlierState::Normal => {}
                OutlierState::Doubted { failure } => self.reevaluate_outlier(id, failure, now),
                OutlierState::Ejected(ejection) => {
                    let all = endpoint.stats.collect_attempts();
                    let tries = all.since(endpoint.evaluated_attempts);
                    endpoint.evaluated_attempts = all;
                    self.update_trials(id, ejection, tries, now);
                }
            }
        }
    }

    fn reevaluate_outlier(&mut self, id: EndpointId, failure: Failure, now: Instant) {
        self.evaluate_outlier(id, Some(failure), now);
        let is_doubted =
            |endpoint: &EndpointState| matches!(endpoint.outlier, OutlierState::Doubted { .. });
        if self.endpoints.get(id).is_some_and(is_doubted) {
            self.schedule_outlier_check(id, self.next_outlier_check(now));
        }
    }

    /// Puts an endpoint down for what requests got there, if anybody else can serve them.
    fn try_eject(&mut self, id: EndpointId, failure: Failure, now: Instant) {
        let Some(location) = self.endpoints.get(id).map(|endpoint| endpoint.location) else {
            return;
        };
        let others = self.pools[location.pool].counts.clear
            - u32::from(self.endpoints.get(id).is_some_and(EndpointState::is_clear));
        if others == 0 {
            // Nobody is better: nobody is sentenced, and who was is no worse than the rest.
            return self.uneject_all(location.pool, now);
        }
        if !self.can_evict(location, 1) {
            return;
        }
        self.eject(id, failure, now);
    }

    /// A zone in which failures are spread over its endpoints goes as a whole.
    fn try_eject_zone(&mut self, pool: usize, zone: usize, failure: Failure, now: Instant) {
        let state = &self.pools[pool].zones[zone];
        let clear_elsewhere = self.pools[pool].counts.clear > state.counts.clear;
        if state.is_down() || !clear_elsewhere || !self.can_evict_zone(pool, zone) {
            return;
        }
        let members = state.members.clone();
        let bad: Vec<f32> = members
            .iter()
            .filter_map(|&id| self.endpoints.get(id))
            .map(|endpoint| endpoint.ratio.recent().bad())
            .collect();
        let (sum, most) = (bad.iter().sum::<f32>(), bad.iter().copied().fold(0.0, f32::max));
        let is_spread = most < 0.7 * sum;
        if !is_spread {
            return;
        }
        self.fail_zone(pool, zone, failure, EvidenceSource::Traffic, now);
        for id in members {
            let serves = self.endpoints.get(id).is_some_and(EndpointState::can_serve);
            if serves {
                self.eject(id, failure, now);
            }
        }
    }

    fn eject(&mut self, id: EndpointId, failure: Failure, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let before = endpoint.verdict();
        let hold = endpoint.pool.recovery.hold_down;
        let recover = endpoint.pool.recovery;
        let until = now + hold.max(endpoint.rare_mut().flaps.record_down(&recover, now));
        endpoint.outlier =
            OutlierState::Ejected(Ejection { failure, stage: EjectionStage::Held { until } });
        endpoint.record_cause(now, EvidenceSource::Traffic, failure);
        let (explained, seat) = (endpoint.ratio.take_recent(now), endpoint.location);
        let probe_passes = endpoint.health == Health::Up;
        let subject = endpoint.subject();
        self.pools[seat.pool].discount_explained_failures(seat.zone, explained, now);
        self.schedule_outlier_check(id, until);
        self.apply_verdict_change(id, before, now);
        if probe_passes {
            self.push_event(Event::Divergence(super::Divergence::TrafficFails {
                subject,
                failure,
            }));
        }
    }

    /// Lets all that traffic put down serve again, under suspicion.
    fn uneject_all(&mut self, pool: usize, now: Instant) {
        if self.pools[pool].counts.ejected == 0 {
            return;
        }
        let members: Vec<EndpointId> =
            self.pools[pool].zones.iter().flat_map(|zone| zone.members.clone()).collect();
        for id in members {
            self.uneject(id, now);
        }
    }

    /// A condemned endpoint and what its trials brought.
    fn update_trials(
        &mut self,
        id: EndpointId,
        ejection: Ejection,
        tries: AttemptCounts,
        now: Instant,
    ) {
        let (epoch, next_outlier_check) = (self.epoch, self.next_outlier_check(now));
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let now_us = now.saturating_duration_since(epoch).as_micros() as u64;
        let stats = &endpoint.stats;
        let stage = match ejection.stage {
            EjectionStage::Held { until } if now < until => ejection.stage,
            EjectionStage::Held { .. } => {
                stats.schedule_trials(now_us, TRIAL_GAP_US);
                let (gap_us, taken) = (TRIAL_GAP_US, stats.trial_count());
                EjectionStage::OnTrial {
                    consecutive_successes: 0,
                    gap_us,
                    trials_taken: taken,
                    waiting_since: now,
                }
            }
            EjectionStage::OnTrial {
                consecutive_successes: good_in_a_row,
                gap_us,
                trials_taken: taken,
                waiting_since: waits_since,
            } => {
                let total = stats.trial_count();
                let waits_since = if total == taken { waits_since } else { now };
                let (good_in_a_row, gap_us) = match tries {
                    AttemptCounts { bad: 0, good } => {
                        let faster = gap_us >> good.min(8);
                        (good_in_a_row.saturating_add(good as u32), faster.max(TRIAL_GAP_MIN_US))
                    }
                    _ => (0, (gap_us.max(TRIAL_GAP_US) * 2).min(TRIAL_GAP_MAX_US)),
                };
                if tries != AttemptCounts::default() {
                    stats.schedule_trials(now_us + u64::from(gap_us), gap_us);
                }
                EjectionStage::OnTrial {
                    consecutive_successes: good_in_a_row,
                    gap_us,
                    trials_taken: total,
                    waiting_since: waits_since,
                }
            }
        };
        let next = match stage {
            EjectionStage::Held { until } => until,
            EjectionStage::OnTrial { .. } => next_outlier_check,
        };
        let ejection = Ejection { stage, ..ejection };
        endpoint.outlier = OutlierState::Ejected(ejection);
        self.update_eligibility(id, now);
        self.schedule_outlier_check(id, next.max(self.next_outlier_check(now)));
        // Where its zone is down it may be the one that the zone's return has waited for.
        let has_no_better_endpoint = self
            .endpoints
            .get(id)
            .is_some_and(|one| self.pools[one.location.pool].counts.clear == 0)
            && matches!(ejection.stage, EjectionStage::OnTrial { .. });
        if has_no_better_endpoint || ejection.is_proven(now) && self.can_return(id, now) {
            self.uneject(id, now);
        }
    }

    /// Back under suspicion: it gets requests that can be sent again until the suspicion fades.
    pub(super) fn uneject(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let OutlierState::Ejected(ejection) = endpoint.outlier else { return };
        let before = endpoint.verdict();
        endpoint.stats.cancel_trials();
        endpoint.ratio.restart(SUSPECT_SCORE);
        endpoint.outlier = OutlierState::Doubted { failure: ejection.failure };
        self.apply_verdict_change(id, before, now);
        self.schedule_outlier_check(id, self.next_outlier_check(now));
    }

    /// The probes see a failure too: from now on they judge.
    pub(super) fn clear_outlier_state(&mut self, id: EndpointId, now: Instant) {
        if let Some(endpoint) = self.endpoints.get_mut(id) {
            let explained = endpoint.ratio.take_recent(now);
            self.pools[endpoint.location.pool].discount_explained_failures(
                endpoint.location.zone,
                explained,
                now,
            );
            if let OutlierState::Ejected(Ejection {
                stage: EjectionStage::Held { until }, ..
            }) = endpoint.outlier
            {
                let rare = endpoint.rare_mut();
                rare.held_until = rare.held_until.max(Some(until));
            }
            endpoint.stats.cancel_trials();
            endpoint.evaluated_attempts = endpoint.stats.collect_attempts();
            endpoint.ratio.restart(0.0);
            endpoint.outlier = OutlierState::Normal;
        }
    }
}

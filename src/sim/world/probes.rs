//! Probes under way.
//!
//! A probe makes several attempts, as the prober does: a lost packet is compensated within the
//! timeout, and an endpoint is silent only if it answers none of them. While control is stalled,
//! timeouts are extended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::logic::director::{Input, ProbeTicket};
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason, ProbeOutcome};
use crate::logic::model::topology::PoolSpec;

use super::{EndpointBehavior, ProbeFinding, ProbeResponse, ScheduledEvent, Simulation};

/// A timeout shorter than this has room for one more attempt only.
const SINGLE_RETRY_BELOW: Duration = Duration::from_millis(100);

/// The starts of further attempts, in tenths of a longer timeout.
const RETRY_OFFSETS_TENTHS: [u32; 4] = [1, 2, 4, 6];

/// The earliest start of a further attempt, unless the timeout is short.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(20);

/// When attempt `index` of a probe begins, from the probe's start. `None` if there are no more.
pub fn attempt_after(timeout: Duration, index: usize) -> Option<Duration> {
    if index == 0 {
        return Some(Duration::ZERO);
    }
    if timeout < SINGLE_RETRY_BELOW {
        return (index == 1).then(|| timeout / 2);
    }
    // Two attempts at the same time would be one.
    let from = usize::from(timeout / 5 <= MIN_RETRY_DELAY);
    RETRY_OFFSETS_TENTHS[from..]
        .get(index - 1)
        .map(|tenths| (timeout / 10 * *tenths).max(MIN_RETRY_DELAY))
}

/// A probe that has not ended.
#[derive(Debug)]
pub(super) struct SimulatedProbe {
    endpoint: EndpointId,
    ticket: ProbeTicket,
    address: SocketAddr,
    pool: Arc<PoolSpec>,
    timeout: Duration,
    /// How long control was stalled meanwhile.
    stalled_time: Duration,
    attempts: SmallVec<[ProbeAttempt; 2]>,
    /// Changes with the planned end of the probe: events of an older version are void.
    plan_version: u32,
}

#[derive(Clone, Copy, Debug)]
struct ProbeAttempt {
    started_at: Instant,
    stage: ProbeStage,
}

#[derive(Clone, Copy, Debug)]
enum ProbeStage {
    /// No answer is scheduled, and perhaps never will be.
    InTransit,
    /// The endpoint has received it: the answer leaves at `answered_at` and arrives at
    /// `received_at`.
    Arrived { answered_at: Instant, received_at: Instant, finding: ProbeFinding },
    /// The endpoint has received it and does not answer.
    Silent(FailureLayer),
}

impl SimulatedProbe {
    fn effective_start(&self) -> Instant {
        self.ticket.started + self.stalled_time
    }

    /// The time and outcome of the first answer to any attempt.
    fn first_answer(&self) -> Option<(Instant, ProbeOutcome)> {
        let answers = self.attempts.iter().filter_map(|attempt| match attempt.stage {
            ProbeStage::Arrived { received_at, finding, .. } => {
                Some((received_at, attempt.started_at, finding))
            }
            ProbeStage::InTransit | ProbeStage::Silent(_) => None,
        });
        let (received_at, began, finding) = answers.min_by_key(|(received_at, ..)| *received_at)?;
        let latency = received_at.saturating_duration_since(began);
        let outcome = match finding {
            ProbeFinding::Pass => ProbeOutcome::Pass { latency },
            ProbeFinding::Degraded => ProbeOutcome::Degraded { latency },
            ProbeFinding::Fail(failure) => ProbeOutcome::Fail(failure),
        };
        Some((received_at, outcome))
    }

    /// The furthest layer that any attempt reached, if none is answered in time.
    fn reached_layer(&self) -> FailureLayer {
        let layers = self.attempts.iter().map(|attempt| match attempt.stage {
            ProbeStage::InTransit => FailureLayer::Connect,
            ProbeStage::Arrived { .. } => FailureLayer::Http,
            ProbeStage::Silent(layer) => layer,
        });
        layers.max().unwrap_or(FailureLayer::Connect)
    }
}

impl Simulation {
    pub(super) fn start_probe(
        &mut self,
        endpoint: EndpointId,
        ticket: ProbeTicket,
        address: SocketAddr,
        pool: Arc<PoolSpec>,
        timeout: Duration,
    ) {
        let id = self.next_probe;
        self.next_probe += 1;
        let probe = SimulatedProbe {
            endpoint,
            ticket,
            address,
            pool,
            timeout,
            stalled_time: Duration::ZERO,
            attempts: SmallVec::new(),
            plan_version: 0,
        };
        self.probes.insert(id, probe);
        self.start_attempt(id);
    }

    /// Starts one more attempt, which may be lost.
    fn start_attempt(&mut self, id: u64) {
        let now = self.now;
        let is_lost = self.settings.probe_loss > 0.0 && self.rng.f64() < self.settings.probe_loss;
        let arrives_at = now + self.one_way();
        let Some(probe) = self.probes.get_mut(&id) else { return };
        let attempt = probe.attempts.len();
        probe.attempts.push(ProbeAttempt { started_at: now, stage: ProbeStage::InTransit });
        let next =
            attempt_after(probe.timeout, attempt + 1).map(|after| probe.effective_start() + after);
        if !is_lost {
            self.schedule_event(arrives_at, ScheduledEvent::ProbeArrives { probe: id, attempt });
        }
        if is_lost || next.is_some_and(|next| next < arrives_at) {
            self.schedule_probe_end(id);
        }
    }

    pub(super) fn retry_probe(&mut self, id: u64, attempt: usize) {
        let is_next = self.probes.get(&id).is_some_and(|probe| probe.attempts.len() == attempt);
        if is_next {
            self.start_attempt(id);
        }
    }

    pub(super) fn on_probe_arrival(&mut self, id: u64, attempt: usize) {
        let Some(probe) = self.probes.get(&id) else { return };
        let (address, index) = (probe.address, usize::from(probe.ticket.probe));
        let pool = Arc::clone(&probe.pool);
        let round_trip = self.round_trip();
        let response = self.with_behavior(address, |behavior, usual, rng| {
            let probe = pool.probes.get(index).unwrap_or_else(|| pool.primary_probe());
            behavior.probe_response(probe, behavior.sample_service_time(usual, rng))
        });
        let stage = match response {
            ProbeResponse::Answer { round_trips, service_time: service, finding } => {
                // Half a round trip has passed already; the last half is the way back.
                let answered_at = self.now + round_trip * (round_trips - 1) + service;
                ProbeStage::Arrived {
                    answered_at,
                    received_at: answered_at + round_trip / 2,
                    finding,
                }
            }
            ProbeResponse::Silence(layer) => ProbeStage::Silent(layer),
        };
        if let Some(probe) = self.probes.get_mut(&id) {
            probe.attempts[attempt].stage = stage;
        }
        self.schedule_probe_end(id);
    }

    /// Schedules the end of the probe, with its first answer or at its timeout, and a further
    /// attempt if there is time for one.
    fn schedule_probe_end(&mut self, id: u64) {
        let Some(probe) = self.probes.get_mut(&id) else { return };
        probe.plan_version += 1;
        let deadline = probe.effective_start() + probe.timeout;
        let (ends_at, outcome) = match probe.first_answer() {
            Some((at, outcome)) if at <= deadline => (at, outcome),
            _ => {
                let failure =
                    Failure { layer: probe.reached_layer(), reason: FailureReason::Timeout };
                (deadline, ProbeOutcome::Fail(failure))
            }
        };
        let (plan_version, attempt) = (probe.plan_version, probe.attempts.len());
        let next =
            attempt_after(probe.timeout, attempt).map(|after| probe.effective_start() + after);
        self.schedule_event(
            ends_at,
            ScheduledEvent::ProbeEnds { probe: id, plan_version, outcome },
        );
        if let Some(next) = next.filter(|next| *next < ends_at) {
            self.schedule_event(
                next,
                ScheduledEvent::ProbeRetry { probe: id, attempt, plan_version },
            );
        }
    }

    /// Whether the probe's course is still the one of that version.
    pub(super) fn has_current_plan(&self, id: u64, plan_version: u32) -> bool {
        self.probes.get(&id).is_some_and(|probe| probe.plan_version == plan_version)
    }

    pub(super) fn on_probe_end(&mut self, id: u64, outcome: ProbeOutcome) {
        let Some(SimulatedProbe { endpoint, ticket, .. }) = self.probes.remove(&id) else { return };
        let input = Input::ProbeFinished { endpoint, ticket, outcome };
        if self.settings.max_report_delay.is_zero() {
            return self.deliver_input(input);
        }
        let report_delay = self.settings.max_report_delay.mul_f64(self.rng.f64());
        self.schedule_event(
            self.now + report_delay,
            ScheduledEvent::ProbeReport(endpoint, ticket, outcome),
        );
    }

    /// Applies the new behaviour of an endpoint to the probes that it has not answered.
    pub(super) fn apply_behavior_to_probes(
        &mut self,
        address: SocketAddr,
        behavior: &EndpointBehavior,
    ) {
        let (now, received_at) = (self.now, self.now + self.one_way());
        let stage = match behavior {
            EndpointBehavior::Refused | EndpointBehavior::Reset => {
                let finding = ProbeFinding::Fail(Failure::http(FailureReason::Reset));
                ProbeStage::Arrived { answered_at: now, received_at, finding }
            }
            EndpointBehavior::Hang | EndpointBehavior::BlackHole => {
                ProbeStage::Silent(FailureLayer::Http)
            }
            _ => return,
        };
        let unanswered = |attempt: &ProbeAttempt| matches!(attempt.stage, ProbeStage::Arrived { answered_at, .. } if answered_at > now);
        let mut changed = Vec::new();
        for (&id, probe) in self.probes.iter_mut().filter(|(_, probe)| probe.address == address) {
            let turned = probe.attempts.iter_mut().filter(|attempt| unanswered(attempt));
            if turned.map(|attempt| attempt.stage = stage).count() > 0 {
                changed.push(id);
            }
        }
        changed.into_iter().for_each(|id| self.schedule_probe_end(id));
    }

    /// Extends the timeouts of all probes because control is stalled.
    pub(super) fn extend_probe_timeouts(&mut self, time: Duration) {
        self.probes.values_mut().for_each(|probe| probe.stalled_time += time);
        let ids: Vec<u64> = self.probes.keys().copied().collect();
        ids.into_iter().for_each(|id| self.schedule_probe_end(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_attempts_leave_time_for_an_answer() {
        let ms = Duration::from_millis;
        let at = |timeout| (0..9).map_while(|index| attempt_after(ms(timeout), index)).collect();
        let cases: [(u64, &[u64]); 4] = [
            (500, &[0, 50, 100, 200, 300]),
            (150, &[0, 20, 30, 60, 90]),
            (100, &[0, 20, 40, 60]),
            (60, &[0, 30]),
        ];
        for (timeout, expected) in cases {
            let found: Vec<Duration> = at(timeout);
            assert_eq!(found, expected.iter().map(|at| ms(*at)).collect::<Vec<_>>(), "{timeout}");
        }
    }
}

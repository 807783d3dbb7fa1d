//! Probes on their way.
//!
//! A probe makes several attempts, as the prober does: what a lost packet takes is given back within
//! the timeout, and only an endpoint that answers none of them is silent. The timeout is one of
//! attended time: while control stands still, no probe grows older.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::logic::director::{Input, Ticket};
use crate::logic::id::EndpointId;
use crate::logic::outcome::{Failure, Layer, Outcome, Reason};
use crate::logic::topology::PoolSpec;

use super::{Behavior, Finding, Happening, Meeting, World};

/// A timeout shorter than this has room for one more attempt only.
const SHORT_TIMEOUT: Duration = Duration::from_millis(100);

/// Further attempts begin at these tenths of a longer one.
const TENTHS: [u32; 4] = [1, 2, 4, 6];

/// No further attempt is made earlier than this, unless the timeout is short.
const FIRST_AGAIN: Duration = Duration::from_millis(20);

/// When an attempt of a probe begins, from the probe's start; the first has the index zero. `None`
/// if there are no more.
#[must_use]
pub fn attempt_after(timeout: Duration, index: usize) -> Option<Duration> {
    if index == 0 {
        return Some(Duration::ZERO);
    }
    if timeout < SHORT_TIMEOUT {
        return (index == 1).then(|| timeout / 2);
    }
    // Two of them at the same time would be one.
    let from = usize::from(timeout / 5 <= FIRST_AGAIN);
    TENTHS[from..].get(index - 1).map(|tenths| (timeout / 10 * *tenths).max(FIRST_AGAIN))
}

/// A probe that has not ended.
#[derive(Debug)]
pub(super) struct Probe {
    endpoint: EndpointId,
    ticket: Ticket,
    address: SocketAddr,
    pool: Arc<PoolSpec>,
    timeout: Duration,
    /// How long control stood still meanwhile.
    unattended: Duration,
    attempts: SmallVec<[Attempt; 2]>,
    /// Counts changes of how it will end: only the last one counts.
    fate: u32,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    began: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Nothing has come of it yet, or ever will.
    OnItsWay,
    /// The endpoint has it: its last word leaves at one time and is heard at the other.
    Arrived { answered_at: Instant, heard_at: Instant, finding: Finding },
    /// The endpoint has it, and no word of it will come.
    Silent(Layer),
}

impl Probe {
    fn starts(&self) -> Instant {
        self.ticket.started + self.unattended
    }

    /// When the first of its attempts is answered, and how it ends with that.
    fn answer(&self) -> Option<(Instant, Outcome)> {
        let answers = self.attempts.iter().filter_map(|attempt| match attempt.stage {
            Stage::Arrived { heard_at, finding, .. } => Some((heard_at, attempt.began, finding)),
            Stage::OnItsWay | Stage::Silent(_) => None,
        });
        let (heard_at, began, finding) = answers.min_by_key(|(heard_at, ..)| *heard_at)?;
        let latency = heard_at.saturating_duration_since(began);
        let outcome = match finding {
            Finding::Pass => Outcome::Pass { latency },
            Finding::Degraded => Outcome::Degraded { latency },
            Finding::Fail(failure) => Outcome::Fail(failure),
        };
        Some((heard_at, outcome))
    }

    /// How far the attempts came, if none is answered in time.
    fn layer(&self) -> Layer {
        let layers = self.attempts.iter().map(|attempt| match attempt.stage {
            Stage::OnItsWay => Layer::Connect,
            Stage::Arrived { .. } => Layer::Http,
            Stage::Silent(layer) => layer,
        });
        layers.max().unwrap_or(Layer::Connect)
    }
}

impl World {
    pub(super) fn start_probe(
        &mut self,
        endpoint: EndpointId,
        ticket: Ticket,
        address: SocketAddr,
        pool: Arc<PoolSpec>,
        timeout: Duration,
    ) {
        let id = self.next_probe;
        self.next_probe += 1;
        let probe = Probe {
            endpoint,
            ticket,
            address,
            pool,
            timeout,
            unattended: Duration::ZERO,
            attempts: SmallVec::new(),
            fate: 0,
        };
        self.probes.insert(id, probe);
        self.attempt(id);
    }

    /// One more attempt, which may be lost.
    fn attempt(&mut self, id: u64) {
        let now = self.now;
        let is_lost = self.settings.probe_loss > 0.0 && self.rng.f64() < self.settings.probe_loss;
        let arrives_at = now + self.one_way();
        let Some(probe) = self.probes.get_mut(&id) else { return };
        let attempt = probe.attempts.len();
        probe.attempts.push(Attempt { began: now, stage: Stage::OnItsWay });
        let next = attempt_after(probe.timeout, attempt + 1).map(|after| probe.starts() + after);
        if !is_lost {
            self.add(arrives_at, Happening::ProbeArrives { probe: id, attempt });
        }
        if is_lost || next.is_some_and(|next| next < arrives_at) {
            self.plan_probe(id);
        }
    }

    pub(super) fn probe_again(&mut self, id: u64, attempt: usize) {
        let is_next = self.probes.get(&id).is_some_and(|probe| probe.attempts.len() == attempt);
        if is_next {
            self.attempt(id);
        }
    }

    pub(super) fn probe_arrives(&mut self, id: u64, attempt: usize) {
        let Some(probe) = self.probes.get(&id) else { return };
        let (address, index) = (probe.address, usize::from(probe.ticket.probe));
        let pool = Arc::clone(&probe.pool);
        let round_trip = self.round_trip();
        let meeting = self.behave(address, |behavior, usual, rng| {
            let probe = pool.probes.get(index).unwrap_or_else(|| pool.primary());
            behavior.meets_probe(probe, behavior.service(usual, rng))
        });
        let stage = match meeting {
            Meeting::Answer { round_trips, service, finding } => {
                // It has come half a round trip already, and the last half is the way back.
                let answered_at = self.now + round_trip * (round_trips - 1) + service;
                Stage::Arrived { answered_at, heard_at: answered_at + round_trip / 2, finding }
            }
            Meeting::Silence(layer) => Stage::Silent(layer),
        };
        if let Some(probe) = self.probes.get_mut(&id) {
            probe.attempts[attempt].stage = stage;
        }
        self.plan_probe(id);
    }

    /// It will end with its first answer or at its timeout, and make another attempt before that
    /// if there is time for one.
    fn plan_probe(&mut self, id: u64) {
        let Some(probe) = self.probes.get_mut(&id) else { return };
        probe.fate += 1;
        let deadline = probe.starts() + probe.timeout;
        let (ends_at, outcome) = match probe.answer() {
            Some((at, outcome)) if at <= deadline => (at, outcome),
            _ => {
                let failure = Failure { layer: probe.layer(), reason: Reason::Timeout };
                (deadline, Outcome::Fail(failure))
            }
        };
        let (fate, attempt) = (probe.fate, probe.attempts.len());
        let next = attempt_after(probe.timeout, attempt).map(|after| probe.starts() + after);
        self.add(ends_at, Happening::ProbeEnds { probe: id, fate, outcome });
        if let Some(next) = next.filter(|next| *next < ends_at) {
            self.add(next, Happening::ProbeAgain { probe: id, attempt, fate });
        }
    }

    /// Whether nothing has changed a probe's course since this was planned.
    pub(super) fn is_planned(&self, id: u64, fate: u32) -> bool {
        self.probes.get(&id).is_some_and(|probe| probe.fate == fate)
    }

    pub(super) fn probe_ends(&mut self, id: u64, outcome: Outcome) {
        let Some(Probe { endpoint, ticket, .. }) = self.probes.remove(&id) else { return };
        let input = Input::Probed { endpoint, ticket, outcome };
        if self.settings.reorder.is_zero() {
            return self.tell(input);
        }
        let reorder = self.settings.reorder.mul_f64(self.rng.f64());
        self.add(self.now + reorder, Happening::ProbeHeard(endpoint, ticket, outcome));
    }

    /// What the endpoint has received and not answered meets its new behaviour.
    pub(super) fn turn_probes(&mut self, address: SocketAddr, behavior: &Behavior) {
        let (now, heard_at) = (self.now, self.now + self.one_way());
        let stage = match behavior {
            Behavior::Refused | Behavior::Reset => {
                let finding = Finding::Fail(Failure::http(Reason::Reset));
                Stage::Arrived { answered_at: now, heard_at, finding }
            }
            Behavior::Hang | Behavior::BlackHole => Stage::Silent(Layer::Http),
            _ => return,
        };
        let unanswered = |attempt: &Attempt| matches!(attempt.stage, Stage::Arrived { answered_at, .. } if answered_at > now);
        let mut met = Vec::new();
        for (&id, probe) in self.probes.iter_mut().filter(|(_, probe)| probe.address == address) {
            let turned = probe.attempts.iter_mut().filter(|attempt| unanswered(attempt));
            if turned.map(|attempt| attempt.stage = stage).count() > 0 {
                met.push(id);
            }
        }
        met.into_iter().for_each(|id| self.plan_probe(id));
    }

    /// Control stands still for this long: no probe grows older meanwhile.
    pub(super) fn hold_probes(&mut self, time: Duration) {
        self.probes.values_mut().for_each(|probe| probe.unattended += time);
        let ids: Vec<u64> = self.probes.keys().copied().collect();
        ids.into_iter().for_each(|id| self.plan_probe(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_leave_time_for_an_answer() {
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

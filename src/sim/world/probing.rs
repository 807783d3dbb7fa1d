//! Probes on their way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::director::Ticket;
use crate::logic::id::EndpointId;
use crate::logic::outcome::{Failure, Layer, Outcome, Reason};
use crate::logic::topology::PoolSpec;

use super::{Behavior, Happening, Meeting, World};

/// A probe that has not ended.
#[derive(Debug)]
pub(super) struct Probe {
    endpoint: EndpointId,
    ticket: Ticket,
    address: SocketAddr,
    pool: Arc<PoolSpec>,
    timeout: Duration,
    stage: Stage,
    /// Counts changes of how it will end: only the last one counts.
    fate: u32,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    OnItsWay,
    /// The endpoint has it, and its last word leaves then.
    Arrived {
        answered_at: Instant,
    },
    /// No change at the endpoint can reach it any more.
    Settled,
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
        let probe =
            Probe { endpoint, ticket, address, pool, timeout, stage: Stage::OnItsWay, fate: 0 };
        self.probes.insert(id, probe);
        let at = self.now + self.one_way();
        self.add(at, Happening::ProbeArrives(id));
    }

    pub(super) fn probe_arrives(&mut self, id: u64) {
        let Some(address) = self.probes.get(&id).map(|probe| probe.address) else { return };
        let behavior = self.host(address).behavior;
        let round_trip = self.round_trip();
        let Some(probe) = self.probes.get_mut(&id) else { return };
        match behavior.meets_probe(probe.pool.primary()) {
            Meeting::Answer { round_trips, service, result } => {
                // It has come half a round trip already, and the last half is the way back.
                let answered_at = self.now + round_trip * (round_trips - 1) + service;
                probe.stage = Stage::Arrived { answered_at };
                self.settle_probe(id, answered_at + round_trip / 2, result);
            }
            Meeting::Silence(layer) => self.silence_probe(id, layer),
        }
    }

    /// The probe will end at `at`, or at its timeout if that is earlier.
    fn settle_probe(&mut self, id: u64, at: Instant, result: Result<(), Failure>) {
        let Some(probe) = self.probes.get_mut(&id) else { return };
        let deadline = probe.ticket.started + probe.timeout;
        let latency = at.saturating_duration_since(probe.ticket.started);
        let (at, outcome) = match result {
            _ if at > deadline => (deadline, Outcome::Fail(Failure::http(Reason::Timeout))),
            Ok(()) => (at, Outcome::Pass { latency }),
            Err(failure) => (at, Outcome::Fail(failure)),
        };
        probe.fate += 1;
        let fate = probe.fate;
        self.add(at, Happening::ProbeEnds { probe: id, fate, outcome });
    }

    fn silence_probe(&mut self, id: u64, layer: Layer) {
        let Some(probe) = self.probes.get_mut(&id) else { return };
        probe.stage = Stage::Settled;
        probe.fate += 1;
        let (at, fate) = (probe.ticket.started + probe.timeout, probe.fate);
        let outcome = Outcome::Fail(Failure { layer, reason: Reason::Timeout });
        self.add(at, Happening::ProbeEnds { probe: id, fate, outcome });
    }

    pub(super) fn probe_ends(&mut self, id: u64, fate: u32, outcome: Outcome) {
        if self.probes.get(&id).is_none_or(|probe| probe.fate != fate) {
            return;
        }
        let Some(Probe { endpoint, ticket, .. }) = self.probes.remove(&id) else { return };
        let reorder = self.settings.reorder.mul_f64(self.rng.f64());
        self.add(self.now + reorder, Happening::ProbeHeard { endpoint, ticket, outcome });
    }

    /// What the endpoint has received and not answered meets its new behaviour.
    pub(super) fn turn_probes(&mut self, address: SocketAddr, behavior: Behavior) {
        let unanswered = |probe: &Probe| match probe.stage {
            Stage::Arrived { answered_at } => probe.address == address && answered_at > self.now,
            Stage::OnItsWay | Stage::Settled => false,
        };
        let met: Vec<u64> =
            self.probes.iter().filter(|(_, probe)| unanswered(probe)).map(|(&id, _)| id).collect();
        for id in met {
            match behavior {
                Behavior::Refused | Behavior::Reset => {
                    let at = self.now + self.one_way();
                    self.settle_probe(id, at, Err(Failure::http(Reason::Reset)));
                    if let Some(probe) = self.probes.get_mut(&id) {
                        probe.stage = Stage::Settled;
                    }
                }
                Behavior::Silent => self.silence_probe(id, Layer::Http),
                Behavior::Healthy { .. } | Behavior::BadStatus { .. } | Behavior::BadTls => {}
            }
        }
    }
}

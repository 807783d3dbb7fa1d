//! When whose probe starts: one queue for all, inside a budget.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::logic::health::endpoint_health::Health;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::ProbeOutcome;
use crate::logic::probing::probe_schedule::{ProbeTrigger, traffic_confirmed_interval};

use super::timing_wheel::TimingWheel;
use super::{Director, Event, Output, ProbeTicket};

/// Probes that may start at once after a rest: this share of a second's budget.
const BURST_FRACTION: f64 = 0.05;

/// So many probes in a row without evidence, over at least [`BLIND_AFTER`]: this process cannot see.
const IMPAIRED_AFTER_PROBES: u32 = 3;

/// See [`BLIND_PROBES`].
const IMPAIRED_AFTER: Duration = Duration::from_secs(1);

/// The queue of endpoints by when they are due, and the global budget of probes.
///
/// Entries are never searched for: one that was overtaken by a change of its endpoint's plans is
/// recognised when its time comes, and dropped.
#[derive(Debug)]
pub(super) struct ProbeScheduler {
    queue: TimingWheel,
    /// Due, and waiting for the budget, first come first served: all periods stretch alike.
    waiting: VecDeque<EndpointId>,
    tokens: f64,
    refilled_at: Instant,
}

impl ProbeScheduler {
    pub(super) fn new(now: Instant) -> Self {
        let (queue, waiting) = (TimingWheel::new(now), VecDeque::new());
        Self { queue, waiting, tokens: 0.0, refilled_at: now }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let next_token =
            (!self.waiting.is_empty()).then(|| self.refilled_at + Duration::from_millis(1));
        [self.queue.next_due(), next_token].into_iter().flatten().min()
    }

    /// Whether an endpoint is due and waits for the budget.
    pub(super) fn is_waiting(&self, id: EndpointId) -> bool {
        self.waiting.contains(&id)
    }

    fn refill_tokens(&mut self, per_second: u32, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled_at);
        self.refilled_at = now;
        let rate = f64::from(per_second);
        self.tokens =
            (self.tokens + rate * elapsed.as_secs_f64()).min((rate * BURST_FRACTION).max(1.0));
    }
}

/// Whether probes bring evidence at all.
#[derive(Debug, Default)]
pub(super) enum ProbingState {
    #[default]
    Working,
    Degrading {
        since: Instant,
        void_probes: u32,
    },
    Impaired,
}

impl Director {
    /// Starts every probe that is due, within the budget.
    pub(super) fn start_probes(&mut self, now: Instant) {
        let budget = self.topology.probes_per_second;
        self.probe_scheduler.refill_tokens(budget, now);
        while self.probe_scheduler.tokens >= 1.0 {
            let Some(id) = self.probe_scheduler.waiting.pop_front() else { break };
            self.start_endpoint_probes(id, now);
        }
        loop {
            // All of a batch precede what the batch itself makes due at once.
            let queue = &mut self.probe_scheduler.queue;
            let batch: SmallVec<[_; 16]> = std::iter::from_fn(|| queue.pop(now)).collect();
            if batch.is_empty() {
                return;
            }
            batch.into_iter().for_each(|(due, id)| self.dispatch_due(due, id, now));
        }
    }

    /// Its time has come.
    fn dispatch_due(&mut self, due: Instant, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        if endpoint.scheduled_at != Some(due) {
            return;
        }
        // What has no time to lose does not wait for the budget.
        let is_urgent =
            matches!(endpoint.health, Health::Suspect { .. } | Health::Returning { .. })
                || endpoint.checks.iter().any(|check| check.timer.is_burst_due(now));
        if is_urgent || self.probe_scheduler.tokens >= 1.0 {
            self.start_endpoint_probes(id, now);
        } else {
            self.probe_scheduler.waiting.push_back(id);
        }
    }

    /// Starts what is due of one endpoint.
    fn start_endpoint_probes(&mut self, id: EndpointId, now: Instant) {
        let epoch = self.epoch;
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        endpoint.scheduled_at = None;
        let pool = &mut self.pools[endpoint.location.pool];
        let in_panic = pool.is_in_panic();
        let detect = endpoint.pool.detect;
        let mut period = endpoint.probe_period(in_panic);
        let is_steady = period == detect.interval && endpoint.health == Health::Up;
        let is_vouched_by_traffic =
            || endpoint.last_response(epoch).is_some_and(|answer| answer + detect.interval >= now);
        if is_steady && detect.target.is_some() && is_vouched_by_traffic() {
            period = traffic_confirmed_interval(&detect);
        }
        for (index, check) in endpoint.checks.iter_mut().enumerate() {
            let last = check.timer.last_start();
            let random = self.rng.f64();
            let Some((trigger, timeout)) = check.timer.start(now, period, detect.timeout, random)
            else {
                continue;
            };
            if is_steady
                && trigger == ProbeTrigger::Regular
                && endpoint.up_since.is_some_and(|up| up <= last)
            {
                pool.achieved_period.record(now.saturating_duration_since(last));
            }
            self.probe_scheduler.tokens -= 1.0;
            self.outputs.push_back(Output::StartProbe {
                endpoint: id,
                ticket: ProbeTicket { probe: index as u8, trigger, started: now },
                address: endpoint.address,
                pool: std::sync::Arc::clone(&endpoint.pool),
                timeout,
            });
        }
        self.schedule_probe(id);
    }

    /// Puts an endpoint into the queue, if its plans have changed.
    pub(super) fn schedule_probe(&mut self, id: EndpointId) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let due = endpoint.next_probe_at();
        if due != endpoint.scheduled_at {
            if let Some(due) = due {
                self.probe_scheduler.queue.insert(due, id);
            }
            endpoint.scheduled_at = due;
        }
    }

    /// How many times longer than configured periods are, because of the budget; at least 1.
    pub fn stretch(&self) -> f64 {
        (self.nominal_probes_per_second / f64::from(self.topology.probes_per_second.max(1)))
            .max(1.0)
    }

    /// Whether probes end without evidence for want of this process's own resources.
    pub fn is_probing_impaired(&self) -> bool {
        matches!(self.probing_state, ProbingState::Impaired)
    }

    /// Notices when probes bring no evidence any more.
    pub(super) fn observe_probe_outcome(&mut self, outcome: ProbeOutcome, now: Instant) {
        match (outcome, &mut self.probing_state) {
            (ProbeOutcome::Inconclusive, ProbingState::Working) => {
                self.probing_state = ProbingState::Degrading { since: now, void_probes: 1 }
            }
            (ProbeOutcome::Inconclusive, ProbingState::Degrading { since, void_probes: voids }) => {
                *voids += 1;
                if *voids >= IMPAIRED_AFTER_PROBES
                    && now.saturating_duration_since(*since) >= IMPAIRED_AFTER
                {
                    self.probing_state = ProbingState::Impaired;
                    self.push_event(Event::ProbingImpaired { is_active: true });
                }
            }
            (ProbeOutcome::Inconclusive, ProbingState::Impaired) | (_, ProbingState::Working) => {}
            (_, ProbingState::Degrading { .. }) => self.probing_state = ProbingState::Working,
            (_, ProbingState::Impaired) => {
                self.probing_state = ProbingState::Working;
                self.push_event(Event::ProbingImpaired { is_active: false });
            }
        }
    }
}

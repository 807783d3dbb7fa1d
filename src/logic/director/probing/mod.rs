//! Starts due probes: the scheduler selects the endpoint, the endpoint selects the probe.

pub(crate) mod monitor;
pub(crate) mod scheduler;
mod timing_wheel;

use std::sync::Arc;
use std::time::Instant;

use super::event::Event;
use super::{Director, Output, ProbeTicket};
use crate::logic::health::endpoint_health::Health;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::ProbeOutcome;
use crate::logic::probing::detection_window::traffic_confirmed_interval;
use crate::logic::probing::probe_schedule::ProbeTrigger;

impl Director {
    /// Starts every probe that is due, within the budget.
    pub(super) fn start_probes(&mut self, now: Instant) {
        self.probe_scheduler.refill(self.topology.probes_per_second, now);
        while let Some(id) = self.probe_scheduler.pop_waiting() {
            self.start_endpoint_probes(id, now);
        }
        loop {
            let batch = self.probe_scheduler.pop_due(now);
            if batch.is_empty() {
                return;
            }
            batch.into_iter().for_each(|(due, id)| self.dispatch_due(due, id, now));
        }
    }

    /// Starts the probes of an endpoint that is due, or lets it wait for the budget.
    fn dispatch_due(&mut self, due: Instant, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get(id) else { return };
        if !endpoint.probes().is_queued_at(due) {
            return;
        }
        let health = endpoint.state().probe_verdict();
        let is_urgent = matches!(health, Health::Suspect { .. } | Health::Returning { .. })
            || endpoint.probes().is_burst_due(now);
        if self.probe_scheduler.admit(id, is_urgent) {
            self.start_endpoint_probes(id, now);
        }
    }

    fn start_endpoint_probes(&mut self, id: EndpointId, now: Instant) {
        let epoch = self.epoch;
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        endpoint.probes_mut().unqueue();
        let pool = &mut self.pools[endpoint.location().pool()];
        let detect = endpoint.pool().detect;
        let mut period = endpoint.probe_period(pool.is_in_panic());
        let is_steady = period == detect.interval && endpoint.state().probe_verdict() == Health::Up;
        let is_vouched_by_traffic =
            || endpoint.last_response(epoch).is_some_and(|answer| answer + detect.interval >= now);
        if is_steady && detect.target.is_some() && is_vouched_by_traffic() {
            period = traffic_confirmed_interval(&detect);
        }
        let rng = &mut self.rng;
        let probes = endpoint.probes_mut();
        let started = probes.start_due(period, detect.timeout, now, || rng.f64());
        for probe in started {
            let previous = probe.previous_start();
            if is_steady
                && probe.trigger() == ProbeTrigger::Regular
                && endpoint.up_since().is_some_and(|up| up <= previous)
            {
                pool.record_probe_gap(now.saturating_duration_since(previous));
            }
            self.probe_scheduler.spend();
            self.outputs.push_back(Output::StartProbe {
                endpoint: id,
                ticket: ProbeTicket {
                    probe: probe.index(),
                    trigger: probe.trigger(),
                    started: now,
                },
                address: endpoint.address(),
                pool: Arc::clone(endpoint.pool()),
                timeout: probe.timeout(),
            });
        }
        self.schedule_probe(id);
    }

    /// Starts a burst of probes, unless one began just now.
    pub(super) fn start_probe_burst(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        if !endpoint.is_down_by_probes() {
            let min_gap = endpoint.pool().detect.fast_interval;
            endpoint.probes_mut().begin_burst(now, min_gap);
            self.schedule_probe(id);
        }
    }

    /// Puts an endpoint into the queue, if its plans have changed.
    pub(super) fn schedule_probe(&mut self, id: EndpointId) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        if let Some(due) = endpoint.probes_mut().requeue() {
            self.probe_scheduler.insert(due, id);
        }
    }

    /// Reports when probes stop or resume to yield evidence.
    pub(super) fn observe_probe_outcome(&mut self, outcome: ProbeOutcome, now: Instant) {
        if let Some(is_active) = self.probing_monitor.observe(outcome, now) {
            self.push_event(Event::ProbingImpaired { is_active });
        }
    }

    /// How many times longer than configured periods are, because of the budget; at least 1.
    pub fn stretch(&self) -> f64 {
        self.probe_scheduler.stretch(self.topology.probes_per_second)
    }

    /// Whether probes end without evidence for lack of this process's own resources.
    pub fn is_probing_impaired(&self) -> bool {
        self.probing_monitor.is_impaired()
    }
}

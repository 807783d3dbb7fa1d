//! Carries out the director's outputs and passes probe results and worker reports to it.

use std::rc::Rc;
use std::time::Instant;

use crate::app::dataplane::shared::{WorkerCommand, WorkerReport};
use crate::app::ops::event_log;
use crate::logic::director::{Event, Input, Output};
use crate::logic::model::outcome::ProbeOutcome;
use crate::logic::request::retry::InFlightPolicy;

use super::ControlLoop;
use super::probe_completion::{ProbeCompletion, ProbeResultGuard};

impl ControlLoop {
    /// Carries out all outputs that the director holds.
    pub(super) fn apply_outputs(&mut self) {
        loop {
            let output = self.admin_state.director.borrow_mut().poll_output();
            match output {
                Some(output) => self.apply_output(output),
                None => break,
            }
        }
    }

    fn apply_output(&mut self, output: Output) {
        match output {
            Output::StartProbe { endpoint, ticket, address, pool, timeout } => {
                let completion =
                    ProbeCompletion { endpoint, ticket, outcome: ProbeOutcome::Inconclusive };
                let mut result =
                    ProbeResultGuard { completion, results: self.probe_results.sender.clone() };
                let probe_state =
                    Rc::clone(self.probe_states.entry((endpoint, ticket.probe)).or_default());
                let prober = Rc::clone(&self.prober);
                tokio::task::spawn_local(async move {
                    let probe = &pool.probes[usize::from(ticket.probe)];
                    let outcome = prober.probe(address, probe, timeout, &probe_state).await;
                    event_log::record_probe(&pool.name, outcome);
                    result.set_outcome(outcome);
                });
            }
            Output::Publish(snapshot) => {
                event_log::record_snapshot(snapshot.version);
                self.publish_snapshot(snapshot);
                self.admin_state.director.borrow_mut().handle(Input::Published, Instant::now());
            }
            Output::AbortRequests { endpoint, failure } => {
                let waiting = InFlightPolicy::for_failure(failure);
                self.listeners.broadcast(|| WorkerCommand::AbortEndpoint { endpoint, waiting });
            }
            Output::Drained { endpoint, is_deadline_passed: is_over } => {
                self.listeners.broadcast(|| WorkerCommand::EndpointDrained { endpoint, is_over });
            }
            Output::Event(event) => {
                event_log::record_event(&event);
                self.admin_state.discovery.borrow_mut().on_event(&event, Instant::now());
                self.admin_state.ledger.record_event(&event, &self.ledger_config);
                if matches!(event, Event::OrderChanged { .. }) {
                    self.save_orders();
                }
                self.abort_drill_on_event(&event);
            }
        }
    }

    pub(super) fn on_probe_result(&self, completion: ProbeCompletion) {
        let ProbeCompletion { endpoint, ticket, outcome } = completion;
        let input = Input::ProbeFinished { endpoint, ticket, outcome };
        self.admin_state.director.borrow_mut().handle(input, Instant::now());
    }

    pub(super) fn on_worker_report(&mut self, report: WorkerReport) {
        let input = match report {
            WorkerReport::Traffic { endpoint, failure, began } => {
                Input::TrafficFailed { endpoint, failure, attempt_started: began }
            }
            WorkerReport::IdleClosed(endpoint) => Input::IdleClosed { endpoint },
            WorkerReport::DrillTraffic { drill, endpoint, failure, began } => {
                let input = Input::TrafficFailed { endpoint, failure, attempt_started: began };
                return self.on_drill_report(drill, input);
            }
            WorkerReport::DrillIdleClosed { drill, endpoint } => {
                return self.on_drill_report(drill, Input::IdleClosed { endpoint });
            }
        };
        self.admin_state.director.borrow_mut().handle(input, Instant::now());
    }
}

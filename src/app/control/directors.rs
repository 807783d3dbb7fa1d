//! Drives the directors: production's and, while a drill takes requests, that of the drill.
//!
//! Every input and output carries a tag that names its director (`None` is production). One loop
//! applies the outputs of both; the tag decides only where an output goes.

use std::cell::RefMut;
use std::net::SocketAddr;
use std::ops::DerefMut;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::app::dataplane::shared::{EndpointAbort, WorkerCommand, WorkerEvidence, WorkerReport};
use crate::app::ops::event_log;
use crate::logic::director::{Director, DirectorDriver, Event, Input, Output, ProbeTicket};
use crate::logic::drill::DrillId;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::ProbeOutcome;
use crate::logic::model::topology::PoolSpec;
use crate::logic::request::retry::InFlightPolicy;

use super::ControlLoop;

/// The directors of this process, by tag.
pub struct Directors {
    production: Director,
    drill: Option<(DrillId, Director)>,
}

impl Directors {
    pub fn new(production: Director) -> Self {
        Self { production, drill: None }
    }

    pub fn production(&self) -> &Director {
        &self.production
    }

    pub fn production_mut(&mut self) -> &mut Director {
        &mut self.production
    }

    pub(super) fn start_drill(&mut self, id: DrillId, director: Director) {
        self.drill = Some((id, director));
    }

    pub(super) fn end_drill(&mut self) {
        self.drill = None;
    }

    /// The director of a tag; `None` after the end of its drill.
    fn get_mut(&mut self, tag: Option<DrillId>) -> Option<&mut Director> {
        match (tag, &mut self.drill) {
            (None, _) => Some(&mut self.production),
            (Some(id), Some((drill, director))) if *drill == id => Some(director),
            (Some(_), _) => None,
        }
    }

    /// Passes an input to the director of its tag. Inputs of a drill that has ended are dropped.
    fn handle(&mut self, tag: Option<DrillId>, input: Input, now: Instant) {
        if let Some(director) = self.get_mut(tag) {
            director.handle(input, now);
        }
    }

    /// The tags of all directors, production's first.
    fn tags(&self) -> [Option<Option<DrillId>>; 2] {
        [Some(None), self.drill.as_ref().map(|(id, _)| Some(*id))]
    }

    /// When [`Director::handle_timeout`] of any director is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let drill = self.drill.as_ref().and_then(|(_, director)| director.poll_timeout());
        self.production.poll_timeout().into_iter().chain(drill).min()
    }
}

/// Result of one probe.
#[derive(Clone, Copy)]
pub(super) struct ProbeCompletion {
    drill: Option<DrillId>,
    endpoint: EndpointId,
    ticket: ProbeTicket,
    outcome: ProbeOutcome,
}

/// Sends the result when dropped. A probe task that panics thus reports no evidence, and its
/// endpoint is probed again.
struct ProbeResultGuard {
    completion: ProbeCompletion,
    results: mpsc::UnboundedSender<ProbeCompletion>,
}

impl ProbeResultGuard {
    fn set_outcome(&mut self, outcome: ProbeOutcome) {
        self.completion.outcome = outcome;
    }
}

impl Drop for ProbeResultGuard {
    fn drop(&mut self) {
        let _ = self.results.send(self.completion);
    }
}

/// A probe that a director wants.
struct ProbeStart {
    endpoint: EndpointId,
    ticket: ProbeTicket,
    address: SocketAddr,
    pool: Arc<PoolSpec>,
    timeout: Duration,
}

/// One turn of the director with this tag.
struct DirectorTurn<'a> {
    control: &'a mut ControlLoop,
    tag: Option<DrillId>,
}

impl DirectorDriver for DirectorTurn<'_> {
    fn director(&mut self) -> Option<impl DerefMut<Target = Director>> {
        let directors = self.control.admin_state.directors.borrow_mut();
        RefMut::filter_map(directors, |directors| directors.get_mut(self.tag)).ok()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn apply_output(&mut self, output: Output) {
        let (control, drill) = (&mut *self.control, self.tag);
        match output {
            Output::StartProbe { endpoint, ticket, address, pool, timeout } => {
                control.start_probe(drill, ProbeStart { endpoint, ticket, address, pool, timeout });
            }
            Output::Publish(snapshot) => control.publish_snapshot(drill, snapshot),
            Output::AbortRequests { endpoint, failure } => {
                let waiting = InFlightPolicy::for_failure(failure);
                let abort = EndpointAbort { drill, endpoint, waiting };
                control.listeners.broadcast(|| WorkerCommand::AbortEndpoint(abort));
            }
            Output::Drained { endpoint, is_deadline_passed: is_over } if drill.is_none() => {
                let command = || WorkerCommand::EndpointDrained { endpoint, is_over };
                control.listeners.broadcast(command);
            }
            // A drill starts with the orders in force, and a new order ends it.
            Output::Drained { .. } => {}
            Output::Event(event) if drill.is_none() => control.on_production_event(&event),
            Output::Event(event) => control.on_drill_event(&event),
        }
    }
}

impl ControlLoop {
    /// Runs one turn of every director: what is due by now, then all outputs.
    pub(super) fn drive_directors(&mut self) {
        let tags = self.admin_state.directors.borrow().tags();
        for tag in tags.into_iter().flatten() {
            DirectorTurn { control: self, tag }.drive();
        }
        self.record_drill_progress();
    }

    /// Applies the outputs of inputs that production's director has taken.
    pub(super) fn drain_production_outputs(&mut self) {
        DirectorTurn { control: self, tag: None }.drain_outputs();
    }

    fn on_production_event(&mut self, event: &Event) {
        event_log::record_event(event);
        self.admin_state.discovery.borrow_mut().on_event(event, Instant::now());
        self.admin_state.ledger.record_event(event, &self.ledger_config);
        if matches!(event, Event::OrderChanged { .. }) {
            self.save_orders();
        }
        self.interrupt_drill_on_event(event);
    }

    /// Starts a probe. A drill's probe of an endpoint that seems to fail gets the fault's outcome.
    fn start_probe(&mut self, drill: Option<DrillId>, start: ProbeStart) {
        let ProbeStart { endpoint, ticket, address, pool, timeout } = start;
        let outcome = ProbeOutcome::Inconclusive;
        let mut result = ProbeResultGuard {
            completion: ProbeCompletion { drill, endpoint, ticket, outcome },
            results: self.probe_results.sender.clone(),
        };
        let injected = self.injected_probe_result(drill, address, &pool, (ticket, timeout));
        let key = ProbeKey { drill, endpoint, probe: ticket.probe };
        let connection = Rc::clone(self.probe_connections.entry(key).or_default());
        let prober = Rc::clone(&self.prober);
        tokio::task::spawn_local(async move {
            if let Some(injected) = &injected {
                tokio::time::sleep(injected.delay).await;
            }
            let outcome = match injected.and_then(|injected| injected.failure) {
                Some(failure) => ProbeOutcome::Fail(failure),
                None => {
                    let probe = &pool.probes[usize::from(ticket.probe)];
                    prober.probe(address, probe, timeout, &connection).await
                }
            };
            if drill.is_none() {
                event_log::record_probe(&pool.name, outcome);
            }
            result.set_outcome(outcome);
        });
    }

    pub(super) fn on_probe_result(&self, completion: ProbeCompletion) {
        let ProbeCompletion { drill, endpoint, ticket, outcome } = completion;
        let input = Input::ProbeFinished { endpoint, ticket, outcome };
        self.admin_state.directors.borrow_mut().handle(drill, input, Instant::now());
    }

    pub(super) fn on_worker_report(&self, report: WorkerReport) {
        let input = match report.evidence {
            WorkerEvidence::TrafficFailed { endpoint, failure, began } => {
                Input::TrafficFailed { endpoint, failure, attempt_started: began }
            }
            WorkerEvidence::IdleClosed { endpoint } => Input::IdleClosed { endpoint },
        };
        self.admin_state.directors.borrow_mut().handle(report.drill, input, Instant::now());
    }
}

/// Names the connection that one probe of an endpoint keeps.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ProbeKey {
    pub(super) drill: Option<DrillId>,
    pub(super) endpoint: EndpointId,
    /// Index of the probe in the pool's list.
    probe: u8,
}

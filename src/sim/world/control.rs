//! The control thread: delivers inputs to the director, carries out its outputs, and may stall.

use std::ops::DerefMut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::director::{
    AppliedCommand, CommandError, Director, DirectorDriver, Input, OperatorCommand, Output,
};
use crate::logic::model::topology::Topology;
use crate::logic::request::retry::InFlightPolicy;
use crate::logic::routing::RouteTable;

use super::{ScheduledEvent, Simulation, SimulationEvent};

#[derive(Debug)]
pub(super) struct ControlStall {
    ends_at: Instant,
    /// Inputs that the director has not received.
    pending_inputs: Vec<Input>,
}

impl Simulation {
    /// Applies a topology.
    pub fn configure(&mut self, topology: Topology) {
        let routes = Arc::<RouteTable>::default();
        self.step_count += 1;
        self.deliver_input(Input::Configure { topology, routes });
        self.run_director();
    }

    /// Executes an operator's command; its effects show from the next turn on.
    ///
    /// # Errors
    /// The reason why the director rejects the command.
    pub fn operate(&mut self, command: OperatorCommand) -> Result<AppliedCommand, CommandError> {
        self.step_count += 1;
        let result = self.director.execute_command(command, self.now);
        self.run_director();
        result
    }

    /// Stalls control from now on for `time`: inputs are delivered afterwards, all at once, and the
    /// timeouts of probes are extended.
    pub fn stall_control(&mut self, time: Duration) {
        let until = self.now + time;
        let extension = match &mut self.stall {
            Some(stall) => {
                let further = until.saturating_duration_since(stall.ends_at);
                stall.ends_at += further;
                further
            }
            None => {
                self.stall = Some(ControlStall { ends_at: until, pending_inputs: Vec::new() });
                time
            }
        };
        self.extend_probe_timeouts(extension);
        self.schedule_event(until, ScheduledEvent::ControlResumes);
    }

    /// Processes the next event if it is due by `until`: one turn of the director. Otherwise time
    /// advances to `until`, and the result is `false`.
    pub fn step_until(&mut self, until: Instant) -> bool {
        let is_control_running = self.stall.is_none();
        let due = self.director.poll_timeout().filter(|_| is_control_running);
        let next = [self.events.next_due_at(), due].into_iter().flatten().min();
        let Some(at) = next.filter(|at| *at <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(at);
        self.step_count += 1;
        while let Some(event) = self.events.pop_due(self.now) {
            self.process_event(event);
        }
        self.run_director();
        true
    }

    pub(super) fn resume_control(&mut self) {
        if let Some(stall) = self.stall.take_if(|stall| stall.ends_at <= self.now) {
            stall.pending_inputs.into_iter().for_each(|input| self.deliver_input(input));
        }
    }

    /// Delivers the input now, or when control resumes.
    pub(super) fn deliver_input(&mut self, input: Input) {
        if let Some(stall) = &mut self.stall {
            return stall.pending_inputs.push(input);
        }
        match input {
            Input::ProbeFinished { endpoint, ticket, outcome } => {
                self.record(SimulationEvent::ProbeFinished {
                    endpoint,
                    started: ticket.started,
                    outcome,
                });
            }
            Input::TrafficFailed { endpoint, failure, .. } => {
                self.record(SimulationEvent::TrafficFailed { endpoint, failure });
            }
            _ => {}
        }
        self.director.handle(input, self.now);
    }

    /// Runs a turn of the director, unless control is stalled.
    fn run_director(&mut self) {
        if self.stall.is_none() {
            self.drive();
        }
    }
}

impl DirectorDriver for Simulation {
    fn director(&mut self) -> Option<impl DerefMut<Target = Director>> {
        Some(&mut self.director)
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn apply_output(&mut self, output: Output) {
        match output {
            Output::StartProbe { endpoint, ticket, address, pool, timeout } => {
                self.start_probe(endpoint, ticket, address, pool, timeout);
            }
            Output::Publish(snapshot) => {
                self.snapshot = Arc::clone(&snapshot);
                self.record(SimulationEvent::SnapshotPublished(snapshot));
            }
            Output::AbortRequests { endpoint, failure } => {
                self.record(SimulationEvent::ConnectionsCut { endpoint, failure });
                self.abort_attempts(endpoint, InFlightPolicy::for_failure(failure));
            }
            Output::Drained { endpoint, is_deadline_passed } => {
                if is_deadline_passed {
                    self.abort_attempts(endpoint, InFlightPolicy::AbortRepeatable);
                }
            }
            Output::Event(event) => self.record(SimulationEvent::Director(event)),
        }
    }
}

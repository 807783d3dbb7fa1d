//! Control: hands the director what has happened, does what it says, and may stand still.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::director::{AppliedCommand, CommandError, Input, OperatorCommand, Output};
use crate::logic::model::topology::Topology;
use crate::logic::request::retry::InFlightPolicy;
use crate::logic::routing::RouteTable;

use super::{ScheduledEvent, Simulation, SimulationEvent};

#[derive(Debug)]
pub(super) struct ControlStall {
    ends_at: Instant,
    /// What the director has yet to hear.
    pending_inputs: Vec<Input>,
}

impl Simulation {
    /// Gives the director a topology to obey.
    pub fn configure(&mut self, topology: Topology) {
        let routes = Arc::<RouteTable>::default();
        self.step_count += 1;
        self.deliver_input(Input::Configure { topology, routes });
        self.run_director();
    }

    /// Has the director do what an operator wants; that is seen from the next turn on.
    ///
    /// # Errors
    /// Why it does not.
    pub fn operate(&mut self, wish: OperatorCommand) -> Result<AppliedCommand, CommandError> {
        self.step_count += 1;
        let granted = self.director.execute_command(wish, self.now);
        self.run_director();
        granted
    }

    /// Control stands still from now on, for this long: what happens meanwhile it hears of
    /// afterwards, all at once, and no probe grows older.
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

    /// What happens next, if it happens by `until`: one turn of the director. Without it time
    /// goes on to `until`, and the answer is `false`.
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
        while let Some(happening) = self.events.pop_due(self.now) {
            self.process_event(happening);
        }
        self.run_director();
        true
    }

    pub(super) fn resume_control(&mut self) {
        if let Some(stall) = self.stall.take_if(|stall| stall.ends_at <= self.now) {
            stall.pending_inputs.into_iter().for_each(|input| self.deliver_input(input));
        }
    }

    /// The director hears of it, now or when control attends again.
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

    /// Lets due probes start, and does what the director says, as the control thread does.
    fn run_director(&mut self) {
        if self.stall.is_some() {
            return;
        }
        self.director.handle_timeout(self.now);
        while let Some(output) = self.director.poll_output() {
            match output {
                Output::StartProbe { endpoint, ticket, address, pool, timeout } => {
                    self.start_probe(endpoint, ticket, address, pool, timeout);
                }
                Output::Publish(snapshot) => {
                    self.snapshot = Arc::clone(&snapshot);
                    self.record(SimulationEvent::SnapshotPublished(snapshot));
                    self.director.handle(Input::Published, self.now);
                }
                Output::AbortRequests { endpoint, failure } => {
                    self.record(SimulationEvent::ConnectionsCut { endpoint, failure });
                    self.abort_attempts(endpoint, InFlightPolicy::for_failure(failure));
                }
                Output::Drained { endpoint, is_deadline_passed: is_over } => {
                    if is_over {
                        self.abort_attempts(endpoint, InFlightPolicy::AbortRepeatable);
                    }
                }
                Output::Event(event) => self.record(SimulationEvent::Director(event)),
            }
        }
    }
}

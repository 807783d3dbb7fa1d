//! Control: hands the director what has happened, does what it says, and may stand still.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::director::{Denied, Granted, Input, Output, Wish};
use crate::logic::retry::Waiting;
use crate::logic::route::RouteTable;
use crate::logic::topology::Topology;

use super::{Happening, What, World};

/// Control stands still.
#[derive(Debug)]
pub(super) struct Stall {
    until: Instant,
    /// What the director has yet to hear.
    inbox: Vec<Input>,
}

impl World {
    /// Gives the director a topology to obey.
    pub fn configure(&mut self, topology: Topology) {
        let routes = Arc::<RouteTable>::default();
        self.turn += 1;
        self.tell(Input::Configure { topology, routes });
        self.attend();
    }

    /// Has the director do what an operator wants; that is seen from the next turn on.
    ///
    /// # Errors
    /// Why it does not.
    pub fn operate(&mut self, wish: Wish) -> Result<Granted, Denied> {
        self.turn += 1;
        let granted = self.director.operate(wish, self.now);
        self.attend();
        granted
    }

    /// Control stands still from now on, for this long: what happens meanwhile it hears of
    /// afterwards, all at once, and no probe grows older.
    pub fn stall_control(&mut self, time: Duration) {
        let until = self.now + time;
        let further = match &mut self.stall {
            Some(stall) => {
                let further = until.saturating_duration_since(stall.until);
                stall.until += further;
                further
            }
            None => {
                self.stall = Some(Stall { until, inbox: Vec::new() });
                time
            }
        };
        self.hold_probes(further);
        self.add(until, Happening::ControlWakes);
    }

    /// What happens next, if it happens by `until`: one turn of the director. Without it time
    /// goes on to `until`, and the answer is `false`.
    pub fn turn(&mut self, until: Instant) -> bool {
        let is_attended = self.stall.is_none();
        let due = self.director.poll_timeout().filter(|_| is_attended);
        let next = [self.queue.next_at(), due].into_iter().flatten().min();
        let Some(at) = next.filter(|at| *at <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(at);
        self.turn += 1;
        while let Some(happening) = self.queue.pop_due(self.now) {
            self.happen(happening);
        }
        self.attend();
        true
    }

    pub(super) fn wake_control(&mut self) {
        if let Some(stall) = self.stall.take_if(|stall| stall.until <= self.now) {
            stall.inbox.into_iter().for_each(|input| self.tell(input));
        }
    }

    /// The director hears of it, now or when control attends again.
    pub(super) fn tell(&mut self, input: Input) {
        if let Some(stall) = &mut self.stall {
            return stall.inbox.push(input);
        }
        match input {
            Input::Probed { endpoint, ticket, outcome } => {
                self.mark(What::Probed { endpoint, started: ticket.started, outcome });
            }
            Input::Traffic { endpoint, failure, .. } => self.mark(What::Met { endpoint, failure }),
            _ => {}
        }
        self.director.handle(input, self.now);
    }

    /// Lets due probes start, and does what the director says, as the control thread does.
    fn attend(&mut self) {
        if self.stall.is_some() {
            return;
        }
        self.director.handle_timeout(self.now);
        while let Some(output) = self.director.poll_output() {
            match output {
                Output::Probe { endpoint, ticket, address, pool, timeout } => {
                    self.start_probe(endpoint, ticket, address, pool, timeout);
                }
                Output::Publish(snapshot) => {
                    self.snapshot = Arc::clone(&snapshot);
                    self.mark(What::Published(snapshot));
                    self.director.handle(Input::Published, self.now);
                }
                Output::Cut { endpoint, failure } => {
                    self.mark(What::Cut { endpoint, failure });
                    self.cut(endpoint, Waiting::after(failure));
                }
                Output::Drained { endpoint, is_over } => {
                    if is_over {
                        self.cut(endpoint, Waiting::RepeatableLeave);
                    }
                }
                Output::Event(event) => self.mark(What::Event(event)),
            }
        }
    }
}

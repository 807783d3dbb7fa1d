//! A request's way from endpoint to endpoint, as the request path goes it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::id::EndpointId;
use crate::logic::outcome::{Failure, Reason};
use crate::logic::retry::{self, Reached, Waiting};
use crate::logic::snapshot::{Avoid, Live, PoolView, Sending, Target, Wish};
use crate::logic::witness::Witness;

use super::behavior::{Answer, Reply};
use super::{Behavior, Happening, World};

/// How a connection that is torn down ends a request.
const RESET: End =
    End::Failed { failure: Failure::http(Reason::Reset), reached: Reached::Something };

/// A lost SYN is sent again after this (RFC 6298 2.1), and every further one after twice as long.
const LOST_SYN: Duration = Duration::from_secs(1);

/// The same for any later packet: the least that Linux waits.
const LOST_PACKET: Duration = Duration::from_millis(200);

/// Losses in a row that are told apart; the connection would not live through more.
const LOSSES_AT_MOST: u32 = 12;

#[derive(Debug)]
pub(super) struct Request {
    pub(super) stream: usize,
    pub(super) idempotent: bool,
    pub(super) arrived: Instant,
    pub(super) avoid: Avoid,
    pub(super) tries: u32,
    pub(super) sent_tries: u32,
    pub(super) first_met: Option<Arc<Live>>,
    /// A bad answer that is in hand, should no other endpoint take the request.
    pub(super) holds_bad_answer: bool,
    /// Whose failure that answer is, if it is one.
    pub(super) held_failure: Option<Arc<Live>>,
    /// An endpoint got it that was not refusing it.
    was_received: bool,
    visit: Option<Visit>,
    /// Counts changes of what will become of it: only the last one counts.
    fate: u32,
}

impl Request {
    pub(super) fn new(stream: usize, idempotent: bool, arrived: Instant) -> Self {
        Self {
            stream,
            idempotent,
            arrived,
            avoid: Avoid::default(),
            tries: 0,
            sent_tries: 0,
            first_met: None,
            holds_bad_answer: false,
            held_failure: None,
            was_received: false,
            visit: None,
            fate: 0,
        }
    }
}

/// A request's stay at an endpoint.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    pub(super) target: Target,
    pub(super) began: Instant,
    /// It is there because the endpoint is to prove itself.
    pub(super) is_trial: bool,
    /// What it says for or against the endpoint.
    pub(super) witness: Rc<Witness>,
    /// That it waits for long has been told.
    has_stalled: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    OnItsWay,
    Received {
        answered_at: Instant,
    },
    /// The endpoint has it, and nothing comes of it.
    Silent,
    Settled,
}

/// What happens next to a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Comes { stream: usize },
    Connects { request: u64, fate: u32 },
    Reaches { request: u64, fate: u32 },
    Stalls { request: u64, fate: u32 },
    Slows { request: u64, fate: u32 },
    Ends { request: u64, fate: u32, end: End },
}

/// How a try ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Answered(Answer),
    Failed { failure: Failure, reached: Reached },
}

impl World {
    pub(super) fn client(&mut self, step: Step) {
        match step {
            Step::Comes { stream } => self.comes(stream),
            Step::Connects { request, fate } => self.connects(request, fate),
            Step::Reaches { request, fate } => self.reaches(request, fate),
            Step::Stalls { request, fate } => self.stalls(request, fate),
            Step::Slows { request, fate } => self.slows(request, fate),
            Step::Ends { request, fate, end } => {
                if self.visit(request, fate).is_some() {
                    self.ends(request, end);
                }
            }
        }
    }

    /// Sends a request to an endpoint of the current snapshot.
    pub(super) fn send(&mut self, id: u64, request: Request) {
        match self.choose(&request) {
            Some(next) => self.send_to(id, request, next),
            None => self.give_up(&request),
        }
    }

    pub(super) fn send_to(
        &mut self,
        id: u64,
        mut request: Request,
        (target, is_trial): (Target, bool),
    ) {
        if request.tries > 0 {
            let counts = &mut self.clients.counts;
            counts.resent += 1;
            counts.repeated_post += u64::from(request.was_received && !request.idempotent);
        }
        self.clients.counts.trials += u64::from(is_trial);
        target.live.enter(self.micros(self.now));
        request.tries += 1;
        request.fate += 1;
        request.holds_bad_answer = false;
        request.held_failure = None;
        let fate = request.fate;
        let now = self.now;
        let is_pooled = self.host(target.address).check_out(target.id, now);
        let (stage, step) = if is_pooled {
            (Stage::OnItsWay, Step::Reaches { request: id, fate })
        } else {
            (Stage::Connecting, Step::Connects { request: id, fate })
        };
        request.visit = Some(Visit {
            target,
            began: now,
            is_trial,
            witness: Rc::default(),
            has_stalled: false,
            stage,
        });
        self.clients.requests.insert(id, request);
        let at = now + self.one_way();
        self.add(at, Happening::Client(step));
    }

    /// How long a request waits for its connection, and what it calls that.
    fn connect_patience(&self, id: u64, visit: &Visit) -> Option<(Duration, Reason)> {
        let request = self.clients.requests.get(&id)?;
        let stream = &self.clients.streams[request.stream];
        let timeout = self.settings.timeouts.connect;
        let (stall, slow) = stream.bounds();
        if visit.is_trial {
            return Some((timeout.min(slow), Reason::Timeout));
        }
        let pools = &self.snapshot.pools;
        let view = pools.iter().find(|view| view.spec.name == stream.offer.pool)?;
        let has_other = || view.has_other(visit.target.id, &request.avoid, self.sending(request));
        let spec = &self.settings.retry;
        Some(retry::connect_patience(request.tries, stall, timeout, spec, has_other))
    }

    fn sending(&self, request: &Request) -> Sending {
        if request.idempotent {
            return Sending::Repeatable;
        }
        let doubt = self.clients.streams[request.stream].latency.doubt_bound();
        Sending::Once { before_us: self.micros(self.now).saturating_sub(doubt.as_micros() as u64) }
    }

    /// Where a request goes next, and whether that is a trial.
    pub(super) fn choose(&mut self, request: &Request) -> Option<(Target, bool)> {
        let pool = &self.clients.streams[request.stream].offer.pool;
        let pools = &self.snapshot.pools;
        let view: &Arc<PoolView> = pools.iter().find(|view| view.spec.name == *pool)?;
        let now_us = self.micros(self.now);
        let sending = self.sending(request);
        if request.tries > 0 {
            let other = view.pick_other(&mut self.rng, &request.avoid, sending);
            return other.cloned().map(|target| (target, false));
        }
        let may_be_tried = request.idempotent && self.settings.retry.attempts > 1;
        let trial = may_be_tried.then(|| view.trial(now_us)).flatten();
        match trial {
            Some(target) => {
                target.live.tried();
                Some((target.clone(), true))
            }
            None => {
                let wish = Wish { now_us, ..sending.into() };
                view.pick(&mut self.rng, wish).cloned().map(|target| (target, false))
            }
        }
    }

    /// The SYN is at the endpoint.
    fn connects(&mut self, id: u64, fate: u32) {
        let Some(visit) = self.visit(id, fate) else { return };
        let Some((patience, reason)) = self.connect_patience(id, &visit) else { return };
        let lost = self.lost_time(LOST_SYN);
        let back = self.one_way();
        let behavior = &self.host(visit.target.address).behavior;
        let (is_refused, is_silent) =
            (*behavior == Behavior::Refused, *behavior == Behavior::BlackHole);
        let given_up_at = visit.began + patience;
        let answered_at = self.now + lost + back;
        let reached = Reached::Nothing;
        if is_silent || answered_at > given_up_at {
            let failure = Failure::connect(reason);
            self.end_at(id, given_up_at, End::Failed { failure, reached });
        } else if is_refused {
            let failure = Failure::connect(Reason::Refused);
            self.end_at(id, answered_at, End::Failed { failure, reached });
        } else {
            let at = answered_at + self.one_way();
            self.add(at, Happening::Client(Step::Reaches { request: id, fate }));
        }
    }

    fn reaches(&mut self, id: u64, fate: u32) {
        let Some(visit) = self.visit(id, fate) else { return };
        let (lost, back) = (self.lost_time(LOST_PACKET), self.one_way());
        let (reply, is_received) = self.behave(visit.target.address, |behavior, usual, rng| {
            let service = behavior.service(usual, rng);
            let is_received = !matches!(behavior, Behavior::Refused | Behavior::BlackHole);
            (behavior.meets_request(service, rng), is_received)
        });
        self.change(id, |request| request.was_received |= is_received);
        match reply {
            Reply::Answer { after, answer } => {
                let answered_at = self.now + after + lost;
                self.set_stage(id, Stage::Received { answered_at });
                self.watch(id, &visit, answered_at + back);
                self.end_at(id, answered_at + back, End::Answered(answer));
            }
            Reply::Reset => {
                self.set_stage(id, Stage::Settled);
                self.end_at(id, self.now + back, RESET);
            }
            Reply::Silence => self.fall_silent(id, &visit),
        }
    }

    /// What the packets that an exchange loses cost it.
    fn lost_time(&mut self, first: Duration) -> Duration {
        let loss = self.settings.traffic_loss;
        if loss <= 0.0 {
            return Duration::ZERO;
        }
        let losses = (0..LOSSES_AT_MOST).take_while(|_| self.rng.f64() < loss).count();
        first * ((1 << losses) - 1)
    }

    /// Requests that the endpoint has received and not answered meet its new behaviour.
    pub(super) fn turn_requests(&mut self, address: SocketAddr, behavior: &Behavior) {
        let is_torn = matches!(behavior, Behavior::Refused | Behavior::Reset);
        let is_silent = matches!(behavior, Behavior::Hang | Behavior::BlackHole);
        let now = self.now;
        let turns = |visit: &Visit| match visit.stage {
            Stage::Received { answered_at } => (is_torn || is_silent) && answered_at > now,
            // A process that goes on answers what it has been asked meanwhile.
            Stage::Silent => !is_silent,
            Stage::Connecting | Stage::OnItsWay | Stage::Settled => false,
        };
        let stays = |request: &Request| {
            request.visit.clone().filter(|visit| visit.target.address == address && turns(visit))
        };
        let requests = self.clients.requests.iter();
        let met: Vec<(u64, Visit)> =
            requests.filter_map(|(&id, request)| Some((id, stays(request)?))).collect();
        for (id, visit) in met {
            self.change(id, |request| request.fate += 1);
            if is_torn {
                self.set_stage(id, Stage::Settled);
                let at = now + self.one_way();
                self.end_at(id, at, RESET);
            } else if is_silent {
                self.fall_silent(id, &visit);
            } else if let Some(fate) = self.clients.requests.get(&id).map(|request| request.fate) {
                self.reaches(id, fate);
            }
        }
    }

    /// Nothing comes back: the wait becomes evidence, and much later the request ends.
    fn fall_silent(&mut self, id: u64, visit: &Visit) {
        self.set_stage(id, Stage::Silent);
        let end = visit.began + self.settings.timeouts.response;
        self.watch(id, visit, end);
        let failure = Failure::http(Reason::Timeout);
        self.end_at(id, end, End::Failed { failure, reached: Reached::Something });
    }

    /// A wait that goes beyond the pool's bounds before `end` will be told.
    fn watch(&mut self, id: u64, visit: &Visit, end: Instant) {
        let Some(request) = self.clients.requests.get(&id) else { return };
        let (stall, slow) = self.clients.streams[request.stream].bounds();
        let fate = request.fate;
        if visit.began + stall < end && !visit.has_stalled {
            let step = Step::Stalls { request: id, fate };
            self.add(visit.began + stall, Happening::Client(step));
        }
        if visit.began + slow < end {
            let step = Step::Slows { request: id, fate };
            self.add(visit.began + slow, Happening::Client(step));
        }
    }

    fn stalls(&mut self, id: u64, fate: u32) {
        if let Some(visit) = self.visit(id, fate) {
            self.change_visit(id, |visit| visit.has_stalled = true);
            self.met(&visit, Failure::http(Reason::Stall));
        }
    }

    /// As good as failed: it counts against the endpoint, and ends a trial.
    fn slows(&mut self, id: u64, fate: u32) {
        let Some(visit) = self.visit(id, fate) else { return };
        let failure = Failure::http(Reason::Slow);
        if visit.is_trial {
            self.ends(id, End::Failed { failure, reached: Reached::Something });
        } else {
            self.met(&visit, failure);
        }
    }

    /// The verdict on an endpoint is down: its idle connections are closed, and whoever waits for
    /// it goes elsewhere.
    pub(super) fn cut(&mut self, endpoint: EndpointId, waiting: Waiting) {
        let stays_at = |request: &Request| {
            let visit = request.visit.as_ref().filter(|visit| visit.target.id == endpoint)?;
            let is_sent = visit.stage != Stage::Connecting;
            let leaves = waiting.leaves(request.idempotent || !is_sent);
            leaves.then_some(if is_sent { Reached::Something } else { Reached::Nothing })
        };
        let requests = self.clients.requests.iter();
        let cut: Vec<(u64, Reached)> =
            requests.filter_map(|(&id, request)| Some((id, stays_at(request)?))).collect();
        self.hosts.values_mut().for_each(|host| host.close_idle(endpoint));
        for (id, reached) in cut {
            if let Some((visit, request)) = self.leave(id) {
                self.go_on(id, request, &visit, reached);
            }
        }
    }

    /// The stay of a request, unless its fate has changed since.
    fn visit(&self, id: u64, fate: u32) -> Option<Visit> {
        self.clients.requests.get(&id).filter(|request| request.fate == fate)?.visit.clone()
    }

    pub(super) fn leave(&mut self, id: u64) -> Option<(Visit, Request)> {
        let mut request = self.clients.requests.remove(&id)?;
        let visit = request.visit.take()?;
        visit.target.live.leave();
        Some((visit, request))
    }

    fn change(&mut self, id: u64, how: impl FnOnce(&mut Request)) {
        if let Some(request) = self.clients.requests.get_mut(&id) {
            how(request);
        }
    }

    fn change_visit(&mut self, id: u64, how: impl FnOnce(&mut Visit)) {
        self.change(id, |request| {
            if let Some(visit) = &mut request.visit {
                how(visit);
            }
        });
    }

    fn set_stage(&mut self, id: u64, stage: Stage) {
        self.change_visit(id, |visit| visit.stage = stage);
    }

    fn end_at(&mut self, id: u64, at: Instant, end: End) {
        let Some(fate) = self.clients.requests.get(&id).map(|request| request.fate) else { return };
        self.add(at, Happening::Client(Step::Ends { request: id, fate, end }));
    }
}

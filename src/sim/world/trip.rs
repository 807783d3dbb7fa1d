//! A request's way from endpoint to endpoint, as the request path goes it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::director::Input;
use crate::logic::id::EndpointId;
use crate::logic::outcome::{Failure, Reason};
use crate::logic::retry::{self, Again, Reached, Tried, Waiting};
use crate::logic::snapshot::{Avoid, Live, PoolView, Sending, Target};

use super::{Behavior, Happening, World};

/// How a connection that is torn down ends a request.
const RESET: End =
    End::Failed { failure: Failure::http(Reason::Reset), reached: Reached::Something };

/// Longer than any request is waited for.
const FOREVER: Duration = Duration::from_secs(1 << 30);

#[derive(Debug)]
pub(super) struct Request {
    stream: usize,
    idempotent: bool,
    arrived: Instant,
    avoid: Avoid,
    tries: u32,
    sent_tries: u32,
    first_met: Option<Arc<Live>>,
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
            was_received: false,
            visit: None,
            fate: 0,
        }
    }
}

/// A request's stay at an endpoint.
#[derive(Clone, Debug)]
struct Visit {
    target: Target,
    began: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    OnItsWay,
    Received { answered_at: Instant },
    Settled,
}

/// What happens next to a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Comes { stream: usize },
    Reaches { request: u64, fate: u32 },
    Stalls { request: u64, fate: u32 },
    Ends { request: u64, fate: u32, end: End },
}

/// How a try ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Good,
    BadStatus,
    Failed { failure: Failure, reached: Reached },
}

impl World {
    pub(super) fn client(&mut self, step: Step) {
        match step {
            Step::Comes { stream } => self.comes(stream),
            Step::Reaches { request, fate } => self.reaches(request, fate),
            Step::Stalls { request, fate } => {
                if let Some(visit) = self.visit(request, fate) {
                    self.report(&visit, Failure::http(Reason::Stall));
                }
            }
            Step::Ends { request, fate, end } => self.ends(request, fate, end),
        }
    }

    /// Sends a request to an endpoint of the current snapshot; it fails when there is none.
    pub(super) fn send(&mut self, id: u64, mut request: Request) {
        let pool = &self.clients.streams[request.stream].offer.pool;
        let view: Option<&Arc<PoolView>> =
            self.snapshot.pools.iter().find(|view| view.spec.name == *pool);
        let rng = &mut self.rng;
        let target = view.and_then(|view| {
            let first = request.tries == 0;
            let sending = if request.idempotent { Sending::Repeatable } else { Sending::Once };
            if first {
                view.pick(rng, sending)
            } else {
                view.pick_other(rng, &request.avoid, sending)
            }
        });
        let Some(target) = target.cloned() else { return self.fail(&request) };
        if request.tries > 0 {
            self.clients.counts.resent += 1;
            self.clients.counts.repeated_post +=
                u64::from(request.was_received && !request.idempotent);
        }
        target.live.enter();
        request.tries += 1;
        request.fate += 1;
        request.visit = Some(Visit { target, began: self.now, stage: Stage::OnItsWay });
        let step = Step::Reaches { request: id, fate: request.fate };
        self.clients.requests.insert(id, request);
        let at = self.now + self.one_way();
        self.add(at, Happening::Client(step));
    }

    fn reaches(&mut self, id: u64, fate: u32) {
        let Some(visit) = self.visit(id, fate) else { return };
        let (host_since, behavior) = {
            let host = self.host(visit.target.address);
            (host.since, host.behavior)
        };
        let back = self.one_way();
        if behavior != Behavior::Refused {
            self.change(id, |request| request.was_received = true);
        }
        match behavior {
            Behavior::Healthy { latency } => {
                let answered_at = self.now + latency;
                self.set_stage(id, Stage::Received { answered_at });
                self.watch(id, &visit, answered_at + back);
                self.end_at(id, answered_at + back, End::Good);
            }
            Behavior::Refused => {
                // Who wrote before word of the end had come back wrote into a dead connection.
                let reached = if visit.began < host_since + back {
                    Reached::Something
                } else {
                    Reached::Nothing
                };
                let failure = match reached {
                    Reached::Something => Failure::http(Reason::Reset),
                    Reached::Nothing => Failure::connect(Reason::Refused),
                };
                self.end_at(id, self.now + back, End::Failed { failure, reached });
            }
            Behavior::Reset => self.end_at(id, self.now + back, RESET),
            Behavior::Silent => self.fall_silent(id, &visit),
            Behavior::BadStatus { .. } => self.end_at(id, self.now + back, End::BadStatus),
            // Requests come in cleartext.
            Behavior::BadTls => self.end_at(id, self.now + back, End::Good),
        }
    }

    /// Requests that the endpoint has received and not answered meet its new behaviour.
    pub(super) fn turn_requests(&mut self, address: SocketAddr, behavior: Behavior) {
        let unanswered = |request: &Request| {
            request.visit.as_ref().is_some_and(|visit| match visit.stage {
                Stage::Received { answered_at } => {
                    visit.target.address == address && answered_at > self.now
                }
                Stage::OnItsWay | Stage::Settled => false,
            })
        };
        let requests = self.clients.requests.iter();
        let met: Vec<(u64, Visit)> = requests
            .filter(|(_, request)| unanswered(request))
            .filter_map(|(&id, request)| Some((id, request.visit.clone()?)))
            .collect();
        for (id, visit) in met {
            match behavior {
                Behavior::Refused | Behavior::Reset => {
                    self.change(id, |request| request.fate += 1);
                    self.set_stage(id, Stage::Settled);
                    let at = self.now + self.one_way();
                    self.end_at(id, at, RESET);
                }
                Behavior::Silent => {
                    self.change(id, |request| request.fate += 1);
                    self.fall_silent(id, &visit);
                }
                Behavior::Healthy { .. } | Behavior::BadStatus { .. } | Behavior::BadTls => {}
            }
        }
    }

    /// Nothing comes back: the wait becomes evidence, and much later the request ends.
    fn fall_silent(&mut self, id: u64, visit: &Visit) {
        self.set_stage(id, Stage::Received { answered_at: visit.began + FOREVER });
        let end = visit.began + self.settings.timeouts.response;
        self.watch(id, visit, end);
        let failure = Failure::http(Reason::Timeout);
        self.end_at(id, end, End::Failed { failure, reached: Reached::Something });
    }

    /// A wait that goes beyond the stall bound before `end` will be reported.
    fn watch(&mut self, id: u64, visit: &Visit, end: Instant) {
        let Some(request) = self.clients.requests.get(&id) else { return };
        let bound = self.clients.streams[request.stream].latency.stall_bound();
        let (at, fate) = (visit.began + bound, request.fate);
        if at < end {
            self.add(at, Happening::Client(Step::Stalls { request: id, fate }));
        }
    }

    /// The verdict on an endpoint is down: whoever waits for it goes elsewhere.
    pub(super) fn cut(&mut self, endpoint: EndpointId, waiting: Waiting) {
        let waits = |request: &Request| {
            request.visit.as_ref().is_some_and(|visit| visit.target.id == endpoint)
                && waiting.leaves(request.idempotent)
        };
        let requests = self.clients.requests.iter();
        let cut: Vec<u64> = requests.filter(|(_, r)| waits(r)).map(|(&id, _)| id).collect();
        for id in cut {
            if let Some((visit, request)) = self.leave(id) {
                self.judge(id, request, &visit, Reached::Something);
            }
        }
    }

    fn ends(&mut self, id: u64, fate: u32, end: End) {
        if self.visit(id, fate).is_none() {
            return;
        }
        let Some((visit, request)) = self.leave(id) else { return };
        match end {
            End::Failed { failure, reached } => {
                self.report(&visit, failure);
                self.judge(id, request, &visit, reached);
            }
            End::Good | End::BadStatus => self.answered(&request, &visit, end),
        }
    }

    fn answered(&mut self, request: &Request, visit: &Visit, end: End) {
        let now = self.now;
        if !matches!(end, End::BadStatus) {
            visit.target.live.good(self.micros(now));
        }
        let waited = now.saturating_duration_since(visit.began);
        let stream = &mut self.clients.streams[request.stream];
        stream.latency.record(waited);
        let pool = &stream.offer.pool;
        let view = self.snapshot.pools.iter().find(|view| view.spec.name == *pool);
        let spec = view.map(|view| Arc::clone(&view.spec));
        if let Some(limits) = spec.as_ref().map(|spec| spec.limits)
            && limits.idle_connections > 0
        {
            let until = now + limits.idle_timeout;
            self.host(visit.target.address).pooled.insert(visit.target.id, until);
        }
        let counts = &mut self.clients.counts;
        if matches!(end, End::BadStatus) {
            counts.answered_badly += 1;
            return;
        }
        counts.answered += 1;
        if let Some(met) = &request.first_met {
            let elapsed = now.saturating_duration_since(request.arrived);
            let late = spec.is_some_and(|spec| elapsed > spec.late_after);
            met.rescued(late);
            counts.rescued += 1;
            counts.late += u64::from(late);
        }
    }

    /// Whether a request that has met a failure, or was cut, goes on elsewhere.
    fn judge(&mut self, id: u64, mut request: Request, visit: &Visit, reached: Reached) {
        request.first_met.get_or_insert_with(|| Arc::clone(&visit.target.live));
        request.avoid.leave(visit.target.id, visit.target.zone);
        request.sent_tries += u32::from(reached == Reached::Something);
        let tried = Tried {
            reached,
            idempotent: request.idempotent,
            body_held: true,
            is_trial: false,
            sent_tries: request.sent_tries,
            tries: request.tries,
        };
        let budget = &mut self.clients.streams[request.stream].budget;
        match retry::may_send_again(&tried, &self.settings.retry) {
            Again::Free => self.send(id, request),
            Again::Budgeted if budget.spend() => self.send(id, request),
            Again::Budgeted | Again::No => self.fail(&request),
        }
    }

    /// The client sees the failure.
    fn fail(&mut self, request: &Request) {
        if let Some(met) = &request.first_met {
            met.failed(self.micros(self.now));
        }
        let counts = &mut self.clients.counts;
        let failed =
            if request.idempotent { &mut counts.failed_get } else { &mut counts.failed_post };
        *failed += 1;
    }

    fn report(&mut self, visit: &Visit, failure: Failure) {
        let endpoint = visit.target.id;
        let input = Input::Traffic { endpoint, failure, began: visit.began };
        self.director.handle(input, self.now);
    }

    /// The stay of a request, unless its fate has changed since.
    fn visit(&self, id: u64, fate: u32) -> Option<Visit> {
        self.clients.requests.get(&id).filter(|request| request.fate == fate)?.visit.clone()
    }

    fn leave(&mut self, id: u64) -> Option<(Visit, Request)> {
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

    fn set_stage(&mut self, id: u64, stage: Stage) {
        self.change(id, |request| {
            if let Some(visit) = &mut request.visit {
                visit.stage = stage;
            }
        });
    }

    fn end_at(&mut self, id: u64, at: Instant, end: End) {
        let Some(fate) = self.clients.requests.get(&id).map(|request| request.fate) else { return };
        self.add(at, Happening::Client(Step::Ends { request: id, fate, end }));
    }
}

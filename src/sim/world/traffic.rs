//! Clients and their requests, on the way that the request path takes them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::director::Input;
use crate::logic::evidence::LatencyWindow;
use crate::logic::id::EndpointId;
use crate::logic::outcome::{Failure, Reason};
use crate::logic::retry::{self, Again, Budget, Reached, Tried};
use crate::logic::snapshot::{Avoid, Live, PoolView, Target};

use super::{Behavior, Happening, World};

/// Latencies of before that a pool has learnt its stall bound from when clients come.
const LEARNT_REQUESTS: u32 = 128;

/// What clients ask of a pool: an open loop, which waits for nobody.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The pool's name.
    pub pool: Arc<str>,
    /// Requests a second over the whole pool.
    pub rate_rps: f64,
    /// How they are spaced.
    pub spacing: Spacing,
    /// The share, in 0..1, of requests that must not run twice (POST).
    pub post_share: f64,
}

/// How requests are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// All gaps are equal.
    Even,
    /// As many independent clients make them.
    Exponential,
}

/// What became of all requests so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that clients sent.
    pub sent: u64,
    /// Answered well, the rescued ones included.
    pub answered: u64,
    /// Answered with the endpoint's bad status.
    pub answered_badly: u64,
    /// Answered well by another endpoint than the first.
    pub rescued: u64,
    /// Rescued, but later than the pool's `late_after`.
    pub late: u64,
    /// Failed requests that are idempotent.
    pub failed_get: u64,
    /// Failed requests that are not.
    pub failed_post: u64,
    /// Tries beyond a request's first.
    pub resent: u64,
    /// Requests that are not idempotent and were sent on after an endpoint had got them. The rule
    /// of [`crate::logic::retry`] is that there are none.
    pub repeated_post: u64,
}

/// All clients and the requests that they wait for.
#[derive(Debug, Default)]
pub(super) struct Clients {
    streams: Vec<Stream>,
    requests: BTreeMap<u64, Request>,
    next_request: u64,
    counts: Counts,
}

/// The clients of one offer, and what one worker keeps for their pool.
#[derive(Debug)]
struct Stream {
    offer: Offer,
    ends_at: Option<Instant>,
    budget: Budget,
    settled_at: Instant,
    latency: LatencyWindow,
}

#[derive(Debug)]
struct Request {
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
    /// Lets clients come from now on. The pool's latencies are known already, as they are to a
    /// worker that has served for a while.
    pub fn offer(&mut self, offer: Offer) {
        let usual = self.settings.round_trip + self.settings.latency;
        let mut latency = LatencyWindow::new(usual);
        (0..LEARNT_REQUESTS).for_each(|_| latency.record(usual));
        let budget = Budget::new(&self.settings.retry, self.now);
        let (settled_at, stream) = (self.now, self.clients.streams.len());
        let first_gap = gap(&offer, self.rng.f64());
        self.clients.streams.push(Stream { offer, ends_at: None, budget, settled_at, latency });
        if let Some(first_gap) = first_gap {
            self.add(self.now + first_gap, Happening::Client(Step::Comes { stream }));
        }
    }

    /// Lets no new request come. Those under way go on.
    pub fn end_offers(&mut self) {
        let now = self.now;
        self.clients.streams.iter_mut().for_each(|stream| stream.ends_at = Some(now));
    }

    /// What became of all requests so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.clients.counts
    }

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

    fn comes(&mut self, index: usize) {
        let (random, post) = (self.rng.f64(), self.rng.f64());
        let (now, spec) = (self.now, self.settings.retry);
        let stream = &mut self.clients.streams[index];
        if stream.ends_at.is_some() {
            return;
        }
        if now.saturating_duration_since(stream.settled_at) >= retry::SETTLE_EVERY {
            stream.settled_at = now;
            stream.budget.settle(&spec, now);
        }
        stream.budget.earn(&spec);
        let idempotent = post >= stream.offer.post_share;
        if let Some(gap) = gap(&stream.offer, random) {
            self.add(now + gap, Happening::Client(Step::Comes { stream: index }));
        }
        let id = self.clients.next_request;
        self.clients.next_request += 1;
        self.clients.counts.sent += 1;
        let request = Request {
            stream: index,
            idempotent,
            arrived: now,
            avoid: Avoid::default(),
            tries: 0,
            sent_tries: 0,
            first_met: None,
            was_received: false,
            visit: None,
            fate: 0,
        };
        self.send(id, request);
    }

    /// Sends a request to an endpoint of the current snapshot; it fails when there is none.
    fn send(&mut self, id: u64, mut request: Request) {
        let pool = &self.clients.streams[request.stream].offer.pool;
        let view: Option<&Arc<PoolView>> =
            self.snapshot.pools.iter().find(|view| view.spec.name == *pool);
        let rng = &mut self.rng;
        let target = view.and_then(|view| {
            let first = request.tries == 0;
            if first { view.pick(rng) } else { view.pick_other(rng, &request.avoid) }
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
                Behavior::Healthy { .. } | Behavior::BadStatus { .. } => {}
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
    pub(super) fn cut(&mut self, endpoint: EndpointId) {
        let waits = |request: &Request| {
            request.visit.as_ref().is_some_and(|visit| visit.target.id == endpoint)
        };
        let requests = self.clients.requests.iter();
        let cut: Vec<u64> = requests.filter(|(_, r)| waits(r)).map(|(&id, _)| id).collect();
        for id in cut {
            if let Some((visit, request)) = self.leave(id) {
                self.judge(id, request, &visit, None, Reached::Something);
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
                self.judge(id, request, &visit, Some(failure), reached);
            }
            End::Good | End::BadStatus => self.answered(&request, &visit, end),
        }
    }

    fn answered(&mut self, request: &Request, visit: &Visit, end: End) {
        let now = self.now;
        visit.target.live.good(self.micros(now));
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

    /// Whether a request that has met a failure (`None`: that was cut) goes on elsewhere.
    fn judge(
        &mut self,
        id: u64,
        mut request: Request,
        visit: &Visit,
        failure: Option<Failure>,
        reached: Reached,
    ) {
        request.first_met.get_or_insert_with(|| Arc::clone(&visit.target.live));
        request.avoid.endpoints.push(visit.target.id);
        if failure.is_none_or(retry::leaves_zone) {
            request.avoid.zones.push(visit.target.zone);
        }
        request.sent_tries += u32::from(reached == Reached::Something);
        let tried = Tried {
            reached,
            idempotent: request.idempotent,
            body_held: true,
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

/// How a connection that is torn down ends a request.
const RESET: End =
    End::Failed { failure: Failure::http(Reason::Reset), reached: Reached::Something };

/// Longer than any request is waited for.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// The time to the next request; `None` if none will ever come.
fn gap(offer: &Offer, random: f64) -> Option<Duration> {
    let mean_seconds = 1.0 / offer.rate_rps;
    let seconds = match offer.spacing {
        Spacing::Even => mean_seconds,
        Spacing::Exponential => -mean_seconds * (1.0 - random).ln(),
    };
    Duration::try_from_secs_f64(seconds).ok()
}

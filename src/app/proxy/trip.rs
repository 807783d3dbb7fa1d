//! A request's whole way: from endpoint to endpoint until one answers or nothing is left.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderName;
use http::{Request, Response, StatusCode};
use tokio::time::timeout;

use crate::app::worker::{PoolLocal, View, Worker};
use crate::logic::affinity::Asking;
use crate::logic::breaker::PoolRequest;
use crate::logic::casualty::Casualty;
use crate::logic::drill::Lane;
use crate::logic::outcome;
use crate::logic::retry::{self, Again, Reached, Tried};
use crate::logic::route::{RetrySpec, Route, RouteSpec};
use crate::logic::snapshot::{Avoid, Sending};
use crate::logic::steer;
use crate::logic::topology::PoolSpec;
use crate::net::upstream::{Free, Outgoing, Pool};

use super::actions::Errand;
use super::affinity::{self, Pinned};
use super::asker::Asker;
use super::attempt::{Ask, Begun, Connect, Ended, Part, Progress, attempt};
use super::body::ProxyBody;
use super::choose::{Choice, Next, Way};
use super::fault::Reason;
use super::grpc;
use super::hedge::{Settled, Stalled};
use super::visit::Visit;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Where a request has been, and what it met there.
pub(super) struct Trip<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) route: &'a Route,
    pub(super) asker: &'a Asker<'a>,
    idempotent: bool,
    pub(super) arrived: Instant,
    /// When this trip began.
    began: Instant,
    pub(super) avoid: Avoid,
    pub(super) tries: u32,
    pub(super) sent_tries: u32,
    /// The first endpoint that failed it: the incident that it belongs to.
    pub(super) first_met: Option<Rc<Pool>>,
    /// Counts it among the pool's requests, where those are limited.
    pub(super) counted: Option<PoolRequest>,
    /// Which way its pool leads it.
    way: usize,
    /// The hash of its key, where the pool wants one and it has one.
    key: Option<u64>,
    /// Its cookie, where the pool's clients stay with an endpoint by one.
    pub(super) pinned: Option<Box<Pinned>>,
}

/// Which way a request is led: as its route says, or by where its client is, or by its pool's policy.
fn way(
    view: &View,
    route: &Route,
    pool: &PoolSpec,
    (request, asker): (&Request<()>, &Asker<'_>),
) -> usize {
    match route.spec.steer {
        _ if pool.steer.others.is_empty() => 0,
        Some(policy) => pool.steer.find(&steer::Way::By(policy)),
        None if pool.steer.geography.is_empty() => 0,
        None => pool.steer.way_for(&asker.whereabouts(&view.manners, request.headers())),
    }
}

/// A try that failed.
struct Failed<'a> {
    visit: &'a Visit,
    /// The endpoint's zone, by its index in the pool.
    zone: usize,
    reached: Reached,
}

/// What was before a trip.
pub(super) struct Past {
    /// When the request arrived.
    pub(super) arrived: Instant,
    /// When this trip begins.
    pub(super) began: Instant,
    /// The first endpoint that failed it.
    pub(super) first_met: Option<Rc<Pool>>,
    /// A client waits for the answer: a drill may take it, and interim answers go to that client.
    pub(super) is_awaited: bool,
}

impl Past {
    /// Nothing was: the request has just arrived.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { arrived: now, began: now, first_met: None, is_awaited: true }
    }

    /// A copy of a request begins, which no client waits for.
    pub(super) fn of_copy() -> Self {
        Self { is_awaited: false, ..Self::new() }
    }
}

/// A trip that no endpoint's answer ended.
pub(super) struct Unserved {
    pub(super) reason: Reason,
    pub(super) past: Past,
    /// The request may be sent to another pool: its body is held, and it did not reach an endpoint or
    /// may reach another one.
    pub(super) may_go_on: bool,
    /// The drill that took it.
    lane: Option<Arc<Lane>>,
}

/// Serves a request that has a route to a pool.
pub(super) async fn serve(
    errand: &Errand<'_>,
    route: &Route,
    outgoing: &mut Outgoing,
    past: Past,
) -> Result<Response<ProxyBody>, Unserved> {
    let Errand { worker, view, asker, request, admitted } = *errand;
    let view = match &view.lane {
        Some(lane) if past.is_awaited => worker.takes_part(view, lane, route, request),
        _ => view,
    };
    let (pool, local) = view.pool(route);
    let mut trip = Trip {
        worker,
        route,
        asker,
        idempotent: is_repeatable(request, &route.spec.retry),
        arrived: past.arrived,
        began: past.began,
        avoid: Avoid::default(),
        tries: 0,
        sent_tries: 0,
        first_met: past.first_met,
        counted: None,
        way: way(view, route, &pool.spec, (request, asker)),
        key: affinity::key(&pool.spec, request, asker),
        pinned: Pinned::of(pool, local, request.headers()),
    };
    let switches = route.spec.websocket && admitted.framing.is_none() && asker.has_wish();
    let ask = Ask {
        request,
        admitted,
        asker,
        via: &view.manners.headers.via,
        timeouts: route.spec.timeouts,
        // A call may be a stream of messages, of which nobody knows when they come.
        body_rate: match admitted.framing {
            Some(_) if !grpc::is_call(request.headers()) => view.manners.limits.body_rate,
            _ => 0,
        },
        head_bytes_at_most: pool.spec.limits.response_head_bytes,
        idempotent: trip.idempotent,
        may_hedge: trip.idempotent
            && admitted.framing.is_none()
            && route.spec.retry.hedge
            && !switches,
        switches,
        early: past.is_awaited.then_some(&asker.client.early),
        changes: &route.spec.response_headers,
    };
    local.budget.borrow_mut().earn(&route.spec.retry);
    let ended = match deadline(&route.spec, request) {
        None => trip.run(view, &ask, outgoing).await,
        // Who is dropped in the middle of an exchange withdraws it.
        Some((within, reason)) => {
            let left = within.saturating_sub(trip.arrived.elapsed());
            let run = Box::pin(trip.run(view, &ask, outgoing));
            timeout(left, run).await.unwrap_or(Err(reason))
        }
    };
    ended.map_err(|reason| Unserved {
        reason,
        // At a deadline a try is under way, which may have reached somebody; and time is up.
        may_go_on: outgoing.is_held()
            && !reason.is_deadline()
            && (trip.idempotent || trip.sent_tries == 0),
        past: Past {
            first_met: trip.first_met.take(),
            arrived: trip.arrived,
            began: trip.began,
            is_awaited: past.is_awaited,
        },
        lane: view.drill.clone(),
    })
}

impl Unserved {
    /// The client sees the failure, with `status`.
    pub(super) fn told(&self, worker: &Worker, view: &View, route: &Route, status: StatusCode) {
        let (pool, local) = view.pool(route);
        let elapsed = self.past.arrived.elapsed();
        let way = (route, &*pool.spec);
        let _ = local.measure(&worker.shared, way, status.as_u16(), elapsed);
        if let Some(sight) = self.reason.sight() {
            let now_us = worker.shared.micros(Instant::now());
            if let Some(met) = &self.past.first_met {
                let casualty = Casualty { sight, is_repeatable: self.may_go_on };
                met.target.live.failed(casualty, now_us);
            }
            if let Some(lane) = &self.lane {
                lane.tallies.failed(now_us, self.may_go_on);
            }
        }
        local.meter.refused(self.reason);
        local.meter.answered(status.as_u16(), elapsed);
    }
}

/// How long all tries together may take, and what it is called when that is over: the route's bound or
/// the client's own, whichever comes first.
fn deadline(route: &RouteSpec, request: &Request<()>) -> Option<(Duration, Reason)> {
    let ours = route.timeouts.total.map(|total| (total, Reason::TotalTimeout));
    let theirs = grpc::timeout(request.headers()).map(|time| (time, Reason::DeadlineExceeded));
    ours.into_iter().chain(theirs).min_by_key(|(within, _)| *within)
}

impl Trip<'_> {
    async fn run(
        &mut self,
        view: &Rc<View>,
        ask: &Ask<'_>,
        outgoing: &mut Outgoing,
    ) -> Result<Response<ProxyBody>, Reason> {
        let mut view = Rc::clone(view);
        let mut next = self.first(&view, ask)?;
        let mut failed_for = None;
        loop {
            let (_, local) = view.pool(self.route);
            let Next { mut visit, mut zone, way } = next;
            self.tries += 1;
            let connect = self.connect(&view, &visit, &way);
            let way = (way, connect);
            let result = match attempt(self.worker, local, ask, outgoing, &visit, way).await {
                Ok(Progress::Begun(begun)) => Ok(begun),
                Ok(Progress::Stalled(waiting)) => {
                    let settled;
                    let stalled = Stalled { visit, zone, waiting };
                    Settled { view, visit, zone, result: settled } =
                        Box::pin(self.hedge(view, ask, stalled)).await;
                    settled
                }
                Err(ended) => Err(ended),
            };
            let (_, local) = view.pool(self.route);
            let part = match result {
                Ok(begun) if begun.is_switch() && !self.asker.is_granted(&begun.head.headers) => {
                    Err(Ended::malformed())
                }
                Ok(begun) if begun.is_switch() => return Ok(self.switched(&view, begun, visit)),
                Ok(begun) => {
                    if self.is_unwanted(&begun, &visit, outgoing) {
                        let failed = Failed { visit: &visit, zone, reached: Reached::Something };
                        if let Some(other) = self.elsewhere(&view, &failed, false, outgoing) {
                            begun.discard(ask, &visit);
                            (view, next) = other;
                            continue;
                        }
                    }
                    begun.receive(ask, outgoing, &visit)
                }
                Err(ended) => Err(ended),
            };
            let received = match part {
                Ok(Part::Enough(head, received)) => Ok((head, received)),
                Ok(Part::Pending(pending)) => pending.complete(&visit).await,
                Err(ended) => Err(ended),
            };
            let (reason, reached) = match received {
                Ok((head, received)) => {
                    let is_repeatable = self.idempotent && outgoing.is_held();
                    return Ok(self.answered(&view, (head, received), visit, is_repeatable));
                }
                Err(Ended::Full(full)) => {
                    local.meter.limited(full);
                    return Err(failed_for.unwrap_or_else(|| Reason::of_limit(full)));
                }
                Err(ended) => blame(&ended, &visit)?,
            };
            let failed = Failed { visit: &visit, zone, reached };
            let other = self.elsewhere(&view, &failed, true, outgoing);
            (view, next) = other.ok_or(reason)?;
            failed_for = Some(reason);
        }
    }

    /// Where the request goes first: if it can be sent again, to an endpoint that must prove itself.
    fn first(&mut self, view: &View, ask: &Ask<'_>) -> Result<Next, Reason> {
        let (pool, local) = view.pool(self.route);
        let counted = PoolRequest::take(&pool.spec.limits.breakers, &pool.live);
        self.counted = counted.map_err(|full| {
            local.meter.limited(full);
            Reason::of_limit(full)
        })?;
        if self.counted.is_none() && pool.spec.counts_requests() {
            self.counted = Some(PoolRequest::count(&pool.live));
        }
        let sending = self.sending(local, self.began);
        let now_us = self.worker.shared.micros(self.began);
        let asking = Asking { sending, now_us };
        let pinned = self.pinned.as_ref().and_then(|pinned| pinned.target(pool, asking));
        let choice = Choice {
            worker: self.worker,
            pool,
            local,
            sending,
            way: self.way,
            key: self.key,
            pinned,
            began: self.began,
            is_resend: false,
            may_wait: true,
            note: self.asker.note,
            lane: view.drill.as_ref(),
        };
        if pinned.is_none() && !pool.trials.is_empty() {
            let body_bytes = ask.admitted.framing.map_or(Some(0), |_| ask.admitted.length);
            if retry::may_be_trial(self.idempotent, body_bytes, &self.route.spec.retry)
                && let Some(trial) = choice.trial()
            {
                return Ok(trial);
            }
        }
        Ok(choice.first()?)
    }

    fn sending(&self, local: &PoolLocal, now: Instant) -> Sending {
        if self.idempotent {
            return Sending::Repeatable;
        }
        let doubt = local.latency.borrow().doubt_bound();
        Sending::Once {
            before_us: self.worker.shared.micros(now.checked_sub(doubt).unwrap_or(now)),
        }
    }

    /// How long a connection may take to open.
    pub(super) fn connect(&self, view: &View, visit: &Visit, way: &Way) -> Connect {
        let timeout = self.route.spec.timeouts.connect;
        if !matches!(way, Way::Free(Free::Room(_))) {
            return Connect { timeout, reason: outcome::Reason::Timeout };
        }
        let (pool, local) = view.pool(self.route);
        let latency = local.latency.borrow();
        if visit.is_trial() {
            let timeout = timeout.min(latency.slow_bound());
            return Connect { timeout, reason: outcome::Reason::Timeout };
        }
        let here = visit.home().target.id;
        let has_other = || pool.has_other(here, &self.avoid, self.sending(local, visit.began()));
        let (stall, spec) = (latency.stall_bound(), &self.route.spec.retry);
        let (timeout, reason) =
            retry::connect_patience(self.tries, stall, timeout, spec, has_other);
        Connect { timeout, reason }
    }

    /// The newest view, unless a new configuration has moved the route's pool.
    fn fresh(&self, old: &Rc<View>) -> Rc<View> {
        let new = self.worker.view_beside(old);
        if new.has_pool(self.route) { new } else { Rc::clone(old) }
    }

    /// Whether the answer is one to ask for elsewhere, and the request one that may be sent again.
    fn is_unwanted(&self, begun: &Begun, visit: &Visit, outgoing: &Outgoing) -> bool {
        let status = begun.head.status.as_u16();
        self.idempotent
            && outgoing.is_held()
            && retry::is_unwanted(status, visit.is_trial(), &self.route.spec.retry)
    }

    /// After a try that failed: where the request goes next, in the newest view, and its body
    /// begins anew. `None` if it may go nowhere, or there is nothing to go to.
    fn elsewhere(
        &mut self,
        view: &Rc<View>,
        failed: &Failed<'_>,
        may_wait: bool,
        outgoing: &mut Outgoing,
    ) -> Option<(Rc<View>, Next)> {
        let &Failed { visit, zone, reached } = failed;
        let home = visit.home();
        self.first_met.get_or_insert_with(|| Rc::clone(home));
        self.avoid.leave(home.target.id, zone);
        if let Some(pinned) = &self.pinned {
            pinned.failed_at(&home.target);
        }
        self.sent_tries += u32::from(reached == Reached::Something && !visit.is_trial());
        let tried = Tried {
            reached,
            idempotent: self.idempotent,
            body_held: outgoing.is_held(),
            is_trial: visit.is_trial(),
            sent_tries: self.sent_tries,
            tries: self.tries,
        };
        let again = retry::may_send_again(&tried, &self.route.spec.retry);
        let other = self.other(view, again, may_wait)?;
        outgoing.rewind();
        Some(other)
    }

    /// Another endpoint in the newest view, if there is one to go to and the budget pays.
    pub(super) fn other(
        &self,
        view: &Rc<View>,
        again: Again,
        may_wait: bool,
    ) -> Option<(Rc<View>, Next)> {
        let old = view;
        let view = self.fresh(old);
        let (pool, local) = view.pool(self.route);
        let is_budgeted = match again {
            Again::No => return None,
            Again::Budgeted if !local.budget.borrow().can_spend() => return None,
            Again::Budgeted => true,
            Again::Free => false,
        };
        let now = Instant::now();
        let choice = Choice {
            worker: self.worker,
            pool,
            local,
            sending: self.sending(local, now),
            way: self.way,
            key: self.key,
            pinned: None,
            began: now,
            is_resend: is_budgeted,
            may_wait,
            note: self.asker.note,
            lane: view.drill.as_ref(),
        };
        // Where a drill ends, its identities of endpoints do.
        let has_left = old.drill.is_some() && view.drill.is_none();
        let next = if has_left { choice.first() } else { choice.other(&self.avoid) };
        let next = next.ok()?;
        if is_budgeted && !local.budget.borrow_mut().spend() {
            return None;
        }
        local.meter.resent();
        Some((view, next))
    }
}

/// Whether sending it twice does no harm: by its method, or because its route accepts the keys by which
/// an endpoint recognises what it has done already (draft-ietf-httpapi-idempotency-key-header).
fn is_repeatable(request: &Request<()>, spec: &RetrySpec) -> bool {
    retry::is_idempotent(request.method())
        || spec.idempotency_key && request.headers().contains_key(IDEMPOTENCY_KEY)
}

/// The reason that a request fails with if it cannot go on, and how much of it the endpoint may have
/// seen; `Err` if it cannot go on in any case. What is the endpoint's failure is counted.
pub(super) fn blame(ended: &Ended, visit: &Visit) -> Result<(Reason, Reached), Reason> {
    match *ended {
        Ended::Failed { failure, reached } => {
            visit.met(failure);
            Ok((Reason::of_failure(failure), reached))
        }
        Ended::Cut { reached } => Ok((Reason::EndpointDown, reached)),
        Ended::Client(fault) => Err(Reason::of_client(fault)),
        Ended::Local => Err(Reason::LocalLimit),
        Ended::Full(full) => Err(Reason::of_limit(full)),
    }
}

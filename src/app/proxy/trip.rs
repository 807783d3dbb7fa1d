//! A request's whole way: from endpoint to endpoint until one answers or nothing is left.

use std::rc::Rc;
use std::time::Instant;

use http::header::{EXPECT, HeaderName, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;

use crate::app::worker::{PoolLocal, View, Worker};
use crate::logic::retry::{self, Again, Reached, Tried};
use crate::logic::route::Route;
use crate::logic::snapshot::{Avoid, PoolView, Sending, Target};
use crate::net::h1::ResponseHead;
use crate::net::upstream::{Outgoing, Pool, Received, drain};

use super::admit::Admitted;
use super::attempt::{Ask, Begun, Ended, attempt};
use super::body::ProxyBody;
use super::fault::Reason;
use super::forward;
use super::visit::Visit;

const ENDPOINT_HEADER: HeaderName = HeaderName::from_static("x-gapless-endpoint");
const ATTEMPTS_HEADER: HeaderName = HeaderName::from_static("x-gapless-attempts");

/// Where a request has been, and what it met there.
struct Trip<'a> {
    worker: &'a Rc<Worker>,
    route: &'a Route,
    idempotent: bool,
    arrived: Instant,
    avoid: Avoid,
    tries: u32,
    sent_tries: u32,
    /// The first endpoint that failed it: the incident that it belongs to.
    first_met: Option<Rc<Pool>>,
}

/// A try that comes next.
struct Next {
    home: Rc<Pool>,
    /// The endpoint's zone, by its index in the pool.
    zone: usize,
    /// The endpoint must prove itself.
    is_trial: bool,
}

/// Serves a request that has a route.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    view: &Rc<View>,
    route: &Route,
    peer: &str,
    request: &Request<()>,
    admitted: &Admitted<'_>,
    body: Incoming,
) -> Response<ProxyBody> {
    let (pool, local) = view.pool(route);
    let body_bytes_at_most = route.spec.body_bytes.unwrap_or(u64::MAX);
    if admitted.length.is_some_and(|length| length > body_bytes_at_most) {
        local.meter.refused(Reason::BodyTooLarge);
        if !request.headers().contains_key(EXPECT) {
            drain(body);
        }
        return Reason::BodyTooLarge.response();
    }
    let mut trip = Trip {
        worker,
        route,
        idempotent: retry::is_idempotent(request.method()),
        arrived: Instant::now(),
        avoid: Avoid::default(),
        tries: 0,
        sent_tries: 0,
        first_met: None,
    };
    let ask = Ask {
        request,
        admitted,
        peer,
        via: &view.manners.headers.via,
        timeouts: route.spec.timeouts,
        head_bytes_at_most: pool.spec.limits.response_head_bytes,
        idempotent: trip.idempotent,
    };
    let hold_at_most =
        if route.spec.retry.attempts > 1 { route.spec.retry.buffer_bytes } else { 0 };
    let mut outgoing = Outgoing::new(body, hold_at_most, body_bytes_at_most);
    local.budget.borrow_mut().earn(&route.spec.retry);
    match trip.run(view, &ask, &mut outgoing).await {
        Ok(response) => response,
        Err(reason) => {
            if !request.headers().contains_key(EXPECT) {
                outgoing.abandon();
            }
            trip.failed(reason, local)
        }
    }
}

impl Trip<'_> {
    async fn run(
        &mut self,
        view: &Rc<View>,
        ask: &Ask<'_>,
        outgoing: &mut Outgoing,
    ) -> Result<Response<ProxyBody>, Reason> {
        let mut view = Rc::clone(view);
        let mut next = self.first(&view, ask).ok_or(Reason::NoEndpoint)?;
        loop {
            let (_, local) = view.pool(self.route);
            let began = if self.tries == 0 { self.arrived } else { Instant::now() };
            self.tries += 1;
            let visit = Visit::new(self.worker, Rc::clone(&next.home), began, next.is_trial);
            let ended = match attempt(self.worker, local, ask, outgoing, &visit).await {
                Ok(begun) if self.is_unwanted(&begun, &next, outgoing) => {
                    match self.elsewhere(&view, &next, Reached::Something, outgoing) {
                        Some(other) => {
                            begun.discard(ask, &visit);
                            (view, next) = other;
                            continue;
                        }
                        None => begun.receive(ask, outgoing, &visit).await,
                    }
                }
                Ok(begun) => begun.receive(ask, outgoing, &visit).await,
                Err(ended) => Err(ended),
            };
            let ended = match ended {
                Ok((head, received)) => return Ok(self.answered(&view, head, received, visit)),
                Err(ended) => ended,
            };
            let (reason, reached) = blame(&ended, &visit)?;
            let other = self.elsewhere(&view, &next, reached, outgoing);
            (view, next) = other.ok_or(reason)?;
        }
    }

    /// Where the request goes first: if it can be sent again, to an endpoint that must prove itself.
    fn first(&self, view: &View, ask: &Ask<'_>) -> Option<Next> {
        let (pool, _) = view.pool(self.route);
        if !pool.trials.is_empty() {
            let body_bytes = ask.admitted.framing.map_or(Some(0), |_| ask.admitted.length);
            let now_us = self.worker.shared.micros(self.arrived);
            if retry::may_be_trial(ask.request.method(), body_bytes, &self.route.spec.retry)
                && let Some(target) = pool.trial(now_us)
            {
                return Some(self.next(pool, target, true));
            }
        }
        let target = self.worker.chance(|rng| pool.pick(rng, self.sending()))?;
        Some(self.next(pool, target, false))
    }

    fn next(&self, pool: &PoolView, target: &Target, is_trial: bool) -> Next {
        let home = self.worker.pool(target, pool.spec.limits.idle_connections);
        Next { home, zone: target.zone, is_trial }
    }

    fn sending(&self) -> Sending {
        if self.idempotent { Sending::Repeatable } else { Sending::Once }
    }

    /// The newest view, unless a new configuration has moved the route's pool.
    fn fresh(&self, old: &Rc<View>) -> Rc<View> {
        let new = self.worker.view();
        if new.has_pool(self.route) { new } else { Rc::clone(old) }
    }

    /// Whether the answer is one to ask for elsewhere, and the request one that may be sent again.
    fn is_unwanted(&self, begun: &Begun, tried: &Next, outgoing: &Outgoing) -> bool {
        let status = begun.head.status.as_u16();
        self.idempotent
            && outgoing.is_held()
            && retry::is_unwanted(status, tried.is_trial, &self.route.spec.retry)
    }

    /// After a try that failed: where the request goes next, in the newest view, and its body
    /// begins anew. `None` if it may go nowhere, or there is nothing to go to.
    fn elsewhere(
        &mut self,
        view: &Rc<View>,
        tried: &Next,
        reached: Reached,
        outgoing: &mut Outgoing,
    ) -> Option<(Rc<View>, Next)> {
        self.first_met.get_or_insert_with(|| Rc::clone(&tried.home));
        self.avoid.leave(tried.home.target.id, tried.zone);
        self.sent_tries += u32::from(reached == Reached::Something && !tried.is_trial);
        let tried = Tried {
            reached,
            idempotent: self.idempotent,
            body_held: outgoing.is_held(),
            is_trial: tried.is_trial,
            sent_tries: self.sent_tries,
            tries: self.tries,
        };
        let again = retry::may_send_again(&tried, &self.route.spec.retry);
        if again == Again::No {
            return None;
        }
        let view = self.fresh(view);
        let (pool, local) = view.pool(self.route);
        let target = self.worker.chance(|rng| pool.pick_other(rng, &self.avoid, self.sending()))?;
        if again == Again::Budgeted && !local.budget.borrow_mut().spend() {
            return None;
        }
        let next = self.next(pool, target, false);
        local.meter.resent();
        outgoing.rewind();
        Some((view, next))
    }

    fn answered(
        &self,
        view: &View,
        head: ResponseHead,
        received: Received,
        visit: Visit,
    ) -> Response<ProxyBody> {
        let (pool, local) = view.pool(self.route);
        let elapsed = self.arrived.elapsed();
        local.meter.answered(head.status.as_u16(), elapsed);
        if self.route.spec.retry.statuses.has(head.status.as_u16()) {
            visit.failed();
        } else if let Some(met) = &self.first_met
            && !head.status.is_server_error()
        {
            met.target.live.rescued(elapsed > pool.spec.late_after);
            local.meter.rescued();
        }
        let address = visit.home().target.address;
        let body = match received {
            Received::Whole(bytes) => ProxyBody::whole(bytes),
            Received::Stream(source) => ProxyBody::Stream { source, visit },
        };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        forward::add_via(response.headers_mut(), &view.manners.headers.via);
        if view.manners.headers.expose {
            if let Ok(value) = HeaderValue::try_from(address.to_string()) {
                response.headers_mut().insert(ENDPOINT_HEADER, value);
            }
            response.headers_mut().insert(ATTEMPTS_HEADER, HeaderValue::from(self.tries));
        }
        response
    }

    /// The client sees the failure.
    fn failed(&self, reason: Reason, local: &PoolLocal) -> Response<ProxyBody> {
        if let Some(met) = &self.first_met
            && reason.is_by_endpoint()
        {
            met.target.live.failed(self.worker.shared.micros(Instant::now()));
        }
        local.meter.refused(reason);
        local.meter.answered(reason.table().1.as_u16(), self.arrived.elapsed());
        reason.response()
    }
}

/// The reason that a request fails with if it cannot go on, and how much of it the endpoint may have
/// seen; `Err` if it cannot go on in any case. What is the endpoint's failure is counted.
fn blame(ended: &Ended, visit: &Visit) -> Result<(Reason, Reached), Reason> {
    match *ended {
        Ended::Failed { failure, reached } => {
            visit.met(failure);
            Ok((Reason::of_failure(failure), reached))
        }
        Ended::Cut { reached } => Ok((Reason::EndpointDown, reached)),
        Ended::Client(fault) => Err(Reason::of_client(fault)),
        Ended::Local => Err(Reason::LocalLimit),
    }
}

//! A request's whole way: from endpoint to endpoint until one answers or nothing is left.

use std::rc::Rc;
use std::time::Instant;

use http::header::{EXPECT, HeaderName, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;

use crate::app::worker::{PoolLocal, View, Worker};
use crate::logic::retry::{self, Again, Reached, Tried};
use crate::logic::route::Route;
use crate::logic::snapshot::{Avoid, Sending, Target};
use crate::net::h1::ResponseHead;
use crate::net::upstream::{Outgoing, Pool, Received, drain};

use super::admit::Admitted;
use super::attempt::{Ask, Ended, attempt};
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
        let mut reason = Reason::NoEndpoint;
        loop {
            let (pool, local) = view.pool(self.route);
            let Some(target) = self.pick(&view) else { return Err(reason) };
            let began = if self.tries == 0 { self.arrived } else { Instant::now() };
            self.tries += 1;
            let home = self.worker.pool(target, pool.spec.limits.idle_connections);
            let visit = Visit::new(self.worker, home, began);
            match attempt(self.worker, local, ask, outgoing, &visit).await {
                Ok((head, received)) => return Ok(self.answered(&view, head, received, visit)),
                Err(ended) => {
                    reason = self.judge(&ended, target, &visit, outgoing, local)?;
                    local.meter.resent();
                    outgoing.rewind();
                }
            }
            view = self.fresh(view);
        }
    }

    fn pick<'v>(&self, view: &'v View) -> Option<&'v Target> {
        let (pool, _) = view.pool(self.route);
        let sending = if self.idempotent { Sending::Repeatable } else { Sending::Once };
        self.worker.chance(|rng| {
            if self.tries == 0 {
                pool.pick(rng, sending)
            } else {
                pool.pick_other(rng, &self.avoid, sending)
            }
        })
    }

    /// The newest view, unless a new configuration has moved the route's pool.
    fn fresh(&self, old: Rc<View>) -> Rc<View> {
        let new = self.worker.view();
        if new.has_pool(self.route) { new } else { old }
    }

    /// Whether the request may go on to another endpoint: `Ok` with the reason that it would fail
    /// with if there is none, `Err` with the reason that it fails with now.
    fn judge(
        &mut self,
        ended: &Ended,
        target: &Target,
        visit: &Visit,
        outgoing: &Outgoing,
        local: &PoolLocal,
    ) -> Result<Reason, Reason> {
        let (reason, reached, failure) = match *ended {
            Ended::Failed { failure, reached } => {
                (Reason::of_failure(failure), reached, Some(failure))
            }
            Ended::Cut { reached } => (Reason::EndpointDown, reached, None),
            Ended::Client(fault) => return Err(Reason::of_client(fault)),
            Ended::Local => return Err(Reason::LocalLimit),
        };
        if let Some(failure) = failure {
            visit.report(failure);
        }
        self.first_met.get_or_insert_with(|| Rc::clone(visit.home()));
        self.avoid.endpoints.push(target.id);
        // What is cut by a verdict was silent, and silence is seldom alone in its zone.
        if failure.is_none_or(retry::leaves_zone) {
            self.avoid.zones.push(target.zone);
        }
        self.sent_tries += u32::from(reached == Reached::Something);
        let tried = Tried {
            reached,
            idempotent: self.idempotent,
            body_held: outgoing.is_held(),
            sent_tries: self.sent_tries,
            tries: self.tries,
        };
        match retry::may_send_again(&tried, &self.route.spec.retry) {
            Again::Free => Ok(reason),
            Again::Budgeted if local.budget.borrow_mut().spend() => Ok(reason),
            Again::Budgeted | Again::No => Err(reason),
        }
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
        if let Some(met) = &self.first_met
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

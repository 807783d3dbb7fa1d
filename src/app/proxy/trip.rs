//! A request's whole way: from endpoint to endpoint until one answers or nothing is left.

use std::rc::Rc;
use std::time::Instant;

use http::header::{EXPECT, HeaderName, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;

use crate::app::worker::{PoolLocal, View, Worker};
use crate::logic::breaker::PoolRequest;
use crate::logic::retry::{self, Again, Reached, Tried};
use crate::logic::route::Route;
use crate::logic::snapshot::{Avoid, Sending};
use crate::net::h1::ResponseHead;
use crate::net::upstream::{Outgoing, Pool, Received, drain};

use super::admit::Admitted;
use super::asker::Asker;
use super::attempt::{Ask, Begun, Ended, Part, attempt};
use super::body::ProxyBody;
use super::choose::{Choice, Next};
use super::fault::Reason;
use super::forward;
use super::tunnel::{self, Opening};
use super::visit::Visit;

const ENDPOINT_HEADER: HeaderName = HeaderName::from_static("x-gapless-endpoint");
const ATTEMPTS_HEADER: HeaderName = HeaderName::from_static("x-gapless-attempts");

/// Where a request has been, and what it met there.
struct Trip<'a> {
    worker: &'a Rc<Worker>,
    route: &'a Route,
    asker: &'a Asker<'a>,
    idempotent: bool,
    arrived: Instant,
    avoid: Avoid,
    tries: u32,
    sent_tries: u32,
    /// The first endpoint that failed it: the incident that it belongs to.
    first_met: Option<Rc<Pool>>,
    /// Counts it among the pool's requests, where those are limited.
    counted: Option<PoolRequest>,
}

/// A try that failed.
struct Failed<'a> {
    visit: &'a Visit,
    /// The endpoint's zone, by its index in the pool.
    zone: usize,
    reached: Reached,
}

/// Serves a request that has a route.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    view: &Rc<View>,
    route: &Route,
    asker: &Asker<'_>,
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
        asker,
        idempotent: retry::is_idempotent(request.method()),
        arrived: Instant::now(),
        avoid: Avoid::default(),
        tries: 0,
        sent_tries: 0,
        first_met: None,
        counted: None,
    };
    let ask = Ask {
        request,
        admitted,
        asker,
        via: &view.manners.headers.via,
        timeouts: route.spec.timeouts,
        head_bytes_at_most: pool.spec.limits.response_head_bytes,
        idempotent: trip.idempotent,
        switches: route.spec.websocket && admitted.framing.is_none() && asker.has_wish(),
    };
    let hold_at_most =
        if route.spec.retry.attempts > 1 { route.spec.retry.buffer_bytes } else { 0 };
    let mut outgoing = Outgoing::new(body, hold_at_most, body_bytes_at_most);
    if let Some(note) = asker.note {
        outgoing.count_into(note.read_bytes());
    }
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
        let mut next = self.first(&view, ask)?;
        let mut failed_for = None;
        loop {
            let (_, local) = view.pool(self.route);
            let Next { visit, zone, way } = next;
            self.tries += 1;
            let part = match attempt(self.worker, local, ask, outgoing, &visit, way).await {
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
                Ok((head, received)) => return Ok(self.answered(&view, head, received, visit)),
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
        let choice = Choice {
            worker: self.worker,
            pool,
            local,
            sending: self.sending(),
            began: self.arrived,
            is_resend: false,
            may_wait: true,
            note: self.asker.note,
        };
        if !pool.trials.is_empty() {
            let body_bytes = ask.admitted.framing.map_or(Some(0), |_| ask.admitted.length);
            if retry::may_be_trial(ask.request.method(), body_bytes, &self.route.spec.retry)
                && let Some(trial) = choice.trial()
            {
                return Ok(trial);
            }
        }
        Ok(choice.first()?)
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
        self.first_met.get_or_insert_with(|| Rc::clone(visit.home()));
        self.avoid.leave(visit.home().target.id, zone);
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
        let view = self.fresh(view);
        let (pool, local) = view.pool(self.route);
        let is_budgeted = match again {
            Again::No => return None,
            Again::Budgeted if !local.budget.borrow().can_spend() => return None,
            Again::Budgeted => true,
            Again::Free => false,
        };
        let choice = Choice {
            worker: self.worker,
            pool,
            local,
            sending: self.sending(),
            began: Instant::now(),
            is_resend: is_budgeted,
            may_wait,
            note: self.asker.note,
        };
        let next = choice.other(&self.avoid).ok()?;
        if is_budgeted && !local.budget.borrow_mut().spend() {
            return None;
        }
        local.meter.resent();
        outgoing.rewind();
        Some((view, next))
    }

    fn answered(
        &mut self,
        view: &View,
        head: ResponseHead,
        received: Received,
        mut visit: Visit,
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
            Received::Stream(source) => {
                visit.keep(self.counted.take());
                ProxyBody::Stream { source, visit }
            }
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

    /// The endpoint goes on in another protocol, and so does the client's connection.
    fn switched(&mut self, view: &View, begun: Begun, mut visit: Visit) -> Response<ProxyBody> {
        let (_, local) = view.pool(self.route);
        let (head, endpoint, cuts) = begun.into_tunnel();
        local.meter.answered(head.status.as_u16(), self.arrived.elapsed());
        visit.answered();
        visit.keep(self.counted.take());
        if let Some(upgrade) = self.asker.take_wish() {
            let note = self.asker.note.cloned();
            let idle = self.route.spec.timeouts.tunnel;
            let opening = Opening { upgrade, endpoint, visit, cuts, idle, note };
            self.asker.client.sequel.set(opening.run());
        }
        let mut response = Response::new(ProxyBody::whole(bytes::Bytes::new()));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        tunnel::switch(response.headers_mut());
        forward::add_via(response.headers_mut(), &view.manners.headers.via);
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
        Ended::Full(full) => Err(Reason::of_limit(full)),
    }
}

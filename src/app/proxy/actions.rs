//! What becomes of a request that has a route: an answer of our own, or one of a pool's, with what is
//! left when that fails.

use std::rc::Rc;
use std::time::Instant;

use http::header::{CONTENT_TYPE, EXPECT, HeaderValue, LOCATION, STRICT_TRANSPORT_SECURITY};
use http::{Request, Response};
use hyper::body::Incoming;

use crate::app::worker::{View, Worker};
use crate::logic::route::{Action, Fallback, Fixed, Redirect, Route, RouteSpec, Rule};
use crate::net::upstream::{Outgoing, drain};

use super::admit::Admitted;
use super::asker::Asker;
use super::body::ProxyBody;
use super::client::Client;
use super::fault::Reason;
use super::limit;
use super::mirror;
use super::trip::{self, Past, Unserved};

/// A request that is on its way to an answer, and who sees to it.
#[derive(Clone, Copy)]
pub(super) struct Errand<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) view: &'a Rc<View>,
    pub(super) asker: &'a Asker<'a>,
    pub(super) request: &'a Request<()>,
    pub(super) admitted: &'a Admitted<'a>,
}

/// Answers a request as its route says.
pub(super) async fn act(errand: &Errand<'_>, rule: &Rule, body: Incoming) -> Response<ProxyBody> {
    if let Some(note) = errand.asker.note {
        note.ruled(&rule.spec);
    }
    let mut response = match &rule.spec.action {
        Action::Pools(_) => ask_pool(errand, rule, body).await,
        Action::Redirect(redirect) => {
            unwanted(errand.request, body);
            elsewhere(errand, redirect)
        }
        Action::Respond(fixed) => {
            unwanted(errand.request, body);
            let mut response = Response::default();
            put(&mut response, fixed);
            response
        }
    };
    finish(&rule.spec, errand.asker.client, &mut response);
    response
}

/// A client that waits for 100-continue has sent nothing yet that could be in the way.
pub(super) fn unwanted(request: &Request<()>, body: Incoming) {
    if !request.headers().contains_key(EXPECT) {
        drain(body);
    }
}

fn elsewhere(errand: &Errand<'_>, redirect: &Redirect) -> Response<ProxyBody> {
    let Errand { asker, request, admitted, .. } = *errand;
    let location = redirect.location(request.uri(), admitted.host, asker.client.scheme());
    let Ok(location) = HeaderValue::try_from(location) else { return Reason::BadPath.response() };
    let mut response = Response::new(ProxyBody::default());
    *response.status_mut() = redirect.status;
    response.headers_mut().insert(LOCATION, location);
    response
}

fn put(response: &mut Response<ProxyBody>, fixed: &Fixed) {
    if let Some(status) = fixed.status {
        *response.status_mut() = status;
    }
    if !fixed.body.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, fixed.content_type.clone());
    }
    *response.body_mut() = ProxyBody::whole(fixed.body.clone());
}

/// What the route does to every answer, whoever it comes from.
fn finish(spec: &RouteSpec, client: &Client, response: &mut Response<ProxyBody>) {
    if !spec.response_headers.is_empty() {
        spec.response_headers.apply(response.headers_mut());
    }
    if let Some(hsts) = spec.hsts.as_ref().filter(|_| client.is_tls()) {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
}

async fn ask_pool(errand: &Errand<'_>, rule: &Rule, body: Incoming) -> Response<ProxyBody> {
    let Errand { worker, view, request, admitted, .. } = *errand;
    let Some(route) = worker.chance(|rng| rule.draw(rng)) else {
        unwanted(request, body);
        return Reason::NoRoute.response();
    };
    let asker = errand.asker;
    if let Some(note) = asker.note {
        note.routed(route);
    }
    if asker.insists() && !rule.spec.websocket {
        return Reason::UpgradeRefused.response();
    }
    if let Some(refusal) = limit::refuse(worker, view, route, asker) {
        unwanted(request, body);
        return refusal;
    }
    let spec = &*rule.spec;
    let body_bytes_at_most = spec.body_bytes.unwrap_or(u64::MAX);
    if admitted.length.is_some_and(|length| length > body_bytes_at_most) {
        view.pool(route).1.meter.refused(Reason::BodyTooLarge);
        unwanted(request, body);
        return Reason::BodyTooLarge.response();
    }
    let mirror = mirror::wanted(worker, rule);
    let is_held = spec.retry.attempts > 1 || mirror.is_some() || rule.fallback.is_some();
    let hold_at_most = if is_held { spec.retry.buffer_bytes } else { 0 };
    let mut outgoing = Outgoing::new(body, hold_at_most, body_bytes_at_most);
    if let Some(note) = asker.note {
        outgoing.count_into(note.read_bytes());
    }
    let answer = trip::serve(errand, route, &mut outgoing, Past::new()).await;
    if let Some(mirror) = mirror {
        mirror::send(errand, mirror, &outgoing);
    }
    match answer {
        Ok(response) => response,
        Err(unserved) => otherwise(errand, rule, route, unserved, &mut outgoing).await,
    }
}

/// The pool has nothing left to try.
async fn otherwise(
    errand: &Errand<'_>,
    rule: &Rule,
    route: &Route,
    mut unserved: Unserved,
    outgoing: &mut Outgoing,
) -> Response<ProxyBody> {
    let Errand { worker, view, request, .. } = *errand;
    let is_by_endpoint = unserved.reason.is_by_endpoint();
    let local = view.pool(route).1;
    let (mut answering, mut seen) = (route, view);
    let fresh;
    if let Some(other) = rule.fallback.as_ref().filter(|_| is_by_endpoint && unserved.may_go_on) {
        local.meter.fell_back();
        // What is known of that pool now, and not when the request came.
        fresh = Some(worker.view())
            .filter(|new| new.has_pool(other))
            .unwrap_or_else(|| Rc::clone(view));
        let errand = Errand { view: &fresh, ..*errand };
        outgoing.rewind();
        let past = Past { began: Instant::now(), ..unserved.past };
        match Box::pin(trip::serve(&errand, other, outgoing, past)).await {
            Ok(response) => return response,
            Err(again) => unserved = again,
        }
        (answering, seen) = (other, &fresh);
    }
    if !request.headers().contains_key(EXPECT) {
        outgoing.abandon();
    }
    let mut response = unserved.reason.response();
    if let Some(Fallback::Respond(fixed)) = rule.spec.fallback.as_ref().filter(|_| is_by_endpoint) {
        seen.pool(answering).1.meter.fell_back();
        put(&mut response, fixed);
    }
    unserved.told(worker, seen, answering, response.status());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::route::{HostMatch, PathMatch};

    #[test]
    fn hsts_is_said_over_tls_only() {
        let (name, action) = ("a", Action::pool("web"));
        let mut spec = RouteSpec::new(name, HostMatch::Any, PathMatch::default(), action);
        spec.hsts = Some(HeaderValue::from_static("max-age=60"));
        let address = ([127, 0, 0, 1], 1).into();
        let mut client = Client::new(address, address);
        let said = |client: &Client| {
            let mut response = Response::default();
            finish(&spec, client, &mut response);
            response.headers().contains_key(STRICT_TRANSPORT_SECURITY)
        };
        assert!(!said(&client));
        client.tls = Some(Box::default());
        assert!(said(&client));
    }
}

//! An endpoint's answer becomes the client's.

use std::time::Instant;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::app::worker::View;
use crate::logic::casualty::{Casualty, Sight};
use crate::net::h1::ResponseHead;
use crate::net::upstream::Received;

use super::attempt::Begun;
use super::body::ProxyBody;
use super::forward;
use super::trip::Trip;
use super::tunnel::{self, Opening};
use super::visit::Visit;

const ENDPOINT_HEADER: HeaderName = HeaderName::from_static("x-gapless-endpoint");
const ATTEMPTS_HEADER: HeaderName = HeaderName::from_static("x-gapless-attempts");

impl Trip<'_> {
    pub(super) fn answered(
        &mut self,
        view: &View,
        (head, received): (ResponseHead, Received),
        mut visit: Visit,
        is_repeatable: bool,
    ) -> Response<ProxyBody> {
        let (pool, local) = view.pool(self.route);
        let elapsed = self.arrived.elapsed();
        local.meter.answered(head.status.as_u16(), elapsed);
        let way = (self.route, &*pool.spec);
        let measured = local.measure(&self.worker.shared, way, head.status.as_u16(), elapsed);
        if self.route.spec.retry.statuses.has(head.status.as_u16()) {
            visit.failed(Casualty { sight: Sight::Status, is_repeatable });
        } else if let Some(met) = &self.first_met
            && !head.status.is_server_error()
        {
            met.target.live.rescued(elapsed > pool.spec.late_after);
            local.meter.rescued();
        }
        let mut headers = head.headers;
        self.stays(view, &visit, head.status, &mut headers);
        let address = visit.home().target.address;
        let body = match received {
            Received::Whole(bytes) => ProxyBody::whole(bytes),
            Received::Stream(source) => {
                visit.keep(self.counted.take());
                visit.measured(measured);
                ProxyBody::Stream { source, visit }
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = headers;
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
    pub(super) fn switched(
        &mut self,
        view: &View,
        begun: Begun,
        mut visit: Visit,
    ) -> Response<ProxyBody> {
        let (pool, local) = view.pool(self.route);
        let (mut head, endpoint, cuts) = begun.into_tunnel();
        self.stays(view, &visit, head.status, &mut head.headers);
        let elapsed = self.arrived.elapsed();
        local.meter.answered(head.status.as_u16(), elapsed);
        let way = (self.route, &*pool.spec);
        let _ = local.measure(&self.worker.shared, way, head.status.as_u16(), elapsed);
        visit.answered();
        visit.keep(self.counted.take());
        if let Some((wish, endpoint)) = self.asker.take_wish().zip(endpoint) {
            let note = self.asker.note.cloned();
            let idle = self.route.spec.timeouts.tunnel;
            let opening = Opening { wish, endpoint, visit, cuts, idle, note };
            self.asker.client.sequel.set(opening.run());
        }
        let mut response = Response::new(ProxyBody::whole(bytes::Bytes::new()));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        tunnel::switch(response.headers_mut());
        forward::add_via(response.headers_mut(), &view.manners.headers.via);
        response
    }

    /// Has the client come back to the endpoint that answers, where it is to.
    fn stays(&self, view: &View, visit: &Visit, status: StatusCode, headers: &mut HeaderMap) {
        if let Some(pinned) = &self.pinned {
            let (pool, local) = view.pool(self.route);
            let is_tls = self.asker.origin.scheme == "https";
            let now_us = self.worker.shared.micros(Instant::now());
            let facts = (status, is_tls, view.drill.is_some(), now_us);
            pinned.answered((pool, &local.meter), visit, facts, headers);
        }
    }
}

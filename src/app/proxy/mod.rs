//! The request path: admit, route, pick, try, and try elsewhere.
//!
//! It reads one snapshot per try, takes no lock, and writes nothing that is shared but its
//! endpoint's counters (and, on failure only, one message to control).

mod admit;
mod asker;
mod attempt;
mod body;
mod choose;
mod client;
mod fault;
mod forward;
mod forward_h2;
mod grpc;
mod hedge;
mod patience;
mod trip;
mod visit;
mod wait;

pub use body::ProxyBody;
pub use client::Client;
pub use fault::{REASON_HEADER, Reason};

use std::rc::Rc;

use http::header::{ALLOW, EXPECT, HeaderValue};
use http::{Request, Response};
use hyper::body::{Body, Incoming};

use crate::net::upstream::drain;

use super::access::{Held, Note};
use super::worker::{View, Worker};

use self::asker::Asker;

/// Answers one request. Whatever goes wrong becomes a response.
pub async fn handle(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    request: Request<Incoming>,
) -> Response<ProxyBody> {
    let view = worker.view();
    let call = grpc::Call::of(request.version(), request.headers());
    let (parts, body) = request.into_parts();
    let note = Note::begin(worker, &view.manners, client);
    let held = Held { request: Request::from_parts(parts, ()), note };
    let asker = Asker { client, note: held.note.as_ref() };
    let response = answer(worker, &view, &asker, &held.request, body).await;
    let response = match call {
        None => response,
        Some(call) => call.answer(response),
    };
    match &held.note {
        None => response,
        Some(note) => Rc::clone(note).answered(held.request.method(), response),
    }
}

async fn answer(
    worker: &Rc<Worker>,
    view: &Rc<View>,
    asker: &Asker<'_>,
    request: &Request<()>,
    body: Incoming,
) -> Response<ProxyBody> {
    // A client that waits for 100-continue has sent nothing yet that could be in the way.
    let unwanted = |body| {
        if !request.headers().contains_key(EXPECT) {
            drain(body);
        }
    };
    let limits = &view.manners.limits;
    let admitted = admit::admit(request)
        .and_then(|admitted| admitted.over(request, !body.is_end_stream(), limits.header_count));
    match admitted {
        Err(reason) => {
            unwanted(body);
            reason.response()
        }
        Ok(_) if request.uri().path() == "*" => options(),
        Ok(admitted) => {
            let key = admit::route_key(admitted.host);
            match view.snapshot.routes.find(&key, request.uri().path()) {
                None => {
                    unwanted(body);
                    Reason::NoRoute.response()
                }
                Some(route) => {
                    if let Some(note) = asker.note {
                        note.routed(route);
                    }
                    trip::serve(worker, view, route, asker, request, &admitted, body).await
                }
            }
        }
    }
}

/// `OPTIONS *` asks about the proxy itself.
fn options() -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::whole(bytes::Bytes::new()));
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    response.headers_mut().insert(ALLOW, methods);
    response
}

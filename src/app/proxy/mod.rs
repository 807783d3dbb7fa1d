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
mod limit;
mod marks;
mod origin;
mod patience;
mod trip;
mod tunnel;
mod visit;

pub use body::ProxyBody;
pub use client::Client;
pub use fault::{REASON_HEADER, Reason};
pub use marks::Ids;
pub use tunnel::Sequel;

use std::rc::Rc;

use http::header::{ALLOW, EXPECT, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;

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
    let (parts, body) = request.into_parts();
    let note = Note::begin(worker, &view.manners, client);
    let mut request = Request::from_parts(parts, ());
    let wish = tunnel::asked(&mut request);
    let held = Held { request, note };
    let asker = Asker::of(&view.manners, &worker.ids, client, &held).wishing(wish);
    let mut response = answer(worker, &view, &asker, &held.request, body).await;
    asker.mark(&mut response);
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
    match admit::admit(request) {
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
                    if let Some(refusal) = limit::refuse(worker, view, route, asker) {
                        unwanted(body);
                        return refusal;
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

//! The request path: admit, route, pick, try, and try elsewhere.
//!
//! It reads one snapshot per try, takes no lock, and writes nothing that is shared but its
//! endpoint's counters (and, on failure only, one message to control).

mod actions;
mod admit;
mod affinity;
mod answer;
mod asker;
mod attempt;
mod body;
mod changes;
mod choose;
mod client;
mod drill;
mod early;
mod fault;
mod forward;
mod forward_h2;
mod grpc;
mod hedge;
#[cfg(any(test, fuzzing))]
pub mod hygiene;
mod limit;
mod marks;
mod mirror;
mod origin;
mod path;
mod patience;
mod trip;
mod tunnel;
mod visit;
mod wait;

pub use body::ProxyBody;
pub use client::Client;
pub use early::Early;
pub use fault::{REASON_HEADER, Reason};
pub use marks::{Ids, Parent, SpanId};
pub use mirror::Mirrors;
pub use tunnel::{Running, Sequel, connected};

use std::convert::Infallible;
use std::rc::Rc;

use http::header::{ALLOW, HeaderValue};
use http::{Request, Response};
use hyper::body::{Body, Incoming};

use crate::config::model::Sampling;
use crate::logic::pressure::Level;
use crate::logic::route::Ask;

use self::actions::Errand;
use self::admit::Admitted;

use super::access::{Held, Note};
use super::worker::{View, Worker};

use self::asker::Asker;

/// Answers one request, with what `finish` makes of the response. Whatever goes wrong becomes one.
///
/// What can be done at once is done before the future is made, and what comes last is done inside of
/// it: it then has the less to carry, and need not be carried in another one.
pub fn handle<R>(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
    finish: impl FnOnce(Response<ProxyBody>) -> R,
) -> impl Future<Output = Result<R, Infallible>> {
    let view = worker.view();
    let call = grpc::Call::of(request.version(), request.headers());
    let (parts, body) = request.into_parts();
    let mut request = Request::from_parts(parts, ());
    let prepared = match worker.shared.pressure.level() {
        Level::Shed | Level::Stop => Err(worker.overloaded()),
        Level::Calm | Level::Shrink => path::prepare(&mut request, &view.manners),
    };
    // Without the feature nothing is, and all that hangs on it is left out.
    let is_sampled = cfg!(feature = "otlp")
        && view.manners.headers.sampling.is_some_and(|sampling| {
            let draw = || worker.chance(|rng| rng.u32(..Sampling::WHOLE));
            marks::is_sampled(sampling, request.headers(), draw)
        });
    let note = Note::begin(&worker, &view.manners, &client, is_sampled);
    let wish = tunnel::asked(&mut request, || worker.chance(|rng| rng.u128(..)));
    let held = Held { request, note };
    async move {
        let asker = Asker::of(&view.manners, &worker.ids, &client, &held).wishing(wish);
        let mut response = match prepared {
            Ok(()) => answer(&worker, &view, &asker, &held.request, body).await,
            Err(reason) => {
                actions::unwanted(&held.request, body);
                reason.response()
            }
        };
        // To the client it would be a tunnel, and it is none.
        if asker.insists() && response.status().is_success() {
            response = Reason::UpgradeRefused.response();
        }
        asker.mark(&mut response);
        let response = match call {
            None => response,
            Some(call) => call.answer(response),
        };
        Ok(finish(match &held.note {
            None => response,
            Some(note) => Rc::clone(note).answered(held.request.method(), response),
        }))
    }
}

async fn answer(
    worker: &Rc<Worker>,
    view: &Rc<View>,
    asker: &Asker<'_>,
    request: &Request<()>,
    body: Incoming,
) -> Response<ProxyBody> {
    let limits = &view.manners.limits;
    let admitted = admit::admit(request)
        .and_then(|admitted| admitted.over(request, !body.is_end_stream(), limits.header_count));
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(reason) => {
            actions::unwanted(request, body);
            return reason.response();
        }
    };
    if request.uri().path() == "*" {
        return options();
    }
    let ask = Ask {
        host: &admit::route_key(admitted.host),
        path: request.uri().path(),
        method: request.method(),
        headers: request.headers(),
        query: request.uri().query().unwrap_or_default(),
        is_tls: asker.client.is_tls(),
    };
    let Some(rule) = view.snapshot.routes.find(&ask) else {
        actions::unwanted(request, body);
        return Reason::NoRoute.response();
    };
    if !changes::is_needed(&rule.spec) {
        let errand = Errand { worker, view, asker, request, admitted: &admitted };
        return actions::act(&errand, rule, body).await;
    }
    let Admitted { asked_host, framing, length, .. } = admitted;
    let asked_host = asked_host.to_owned();
    let mut changed = changes::same(request);
    changes::apply(&mut changed, &rule.spec);
    let host = rule.spec.rewrite.host.as_deref().unwrap_or(&asked_host);
    #[cfg(feature = "otlp")]
    if let Some(note) = asker.note {
        note.goes_on_as(changed.uri(), host);
    }
    let admitted = &Admitted { host, asked_host: &asked_host, framing, length };
    let errand = Errand { worker, view, asker, request: &changed, admitted };
    actions::act(&errand, rule, body).await
}

/// `OPTIONS *` asks about the proxy itself.
fn options() -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::whole(bytes::Bytes::new()));
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    response.headers_mut().insert(ALLOW, methods);
    response
}

//! Copies of requests for a pool whose answers nobody sees. They begin when the client's request has
//! its answer, so they never delay it, and what becomes of them is evidence for their own pool only.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use http::Response;
use tokio::time::timeout;

use crate::app::access::Held;
use crate::app::worker::{View, Worker};
use crate::logic::outcome::Failure;
use crate::logic::route::{Route, Rule};
use crate::net::upstream::{BodyFraming, Outgoing, ResponseError};

use super::actions::Errand;
use super::admit::Admitted;
use super::asker::Asker;
use super::body::ProxyBody;
use super::changes;
use super::client::Client;
use super::trip::{self, Past};

/// Copies that one worker has under way, at most; what would be one more is not sent.
const COPIES_AT_MOST: usize = 64;

/// Bytes of bodies that they hold together, at most.
const BYTES_AT_MOST: usize = 4 * 1024 * 1024;

/// A copy that takes longer is withdrawn.
const TIME_AT_MOST: Duration = Duration::from_secs(60);

/// So much of an answer is read, so that its connection can be kept.
const READ_BYTES: usize = 1024 * 1024;

/// What one worker has under way.
#[derive(Debug, Default)]
pub struct Mirrors {
    copies: Cell<usize>,
    bytes: Cell<usize>,
}

/// A copy's place among them; given back when dropped.
struct Place {
    mirrors: Rc<Mirrors>,
    bytes: usize,
}

impl Place {
    fn take(mirrors: &Rc<Mirrors>, bytes: usize) -> Option<Self> {
        let (copies, held) = (mirrors.copies.get() + 1, mirrors.bytes.get() + bytes);
        if copies > COPIES_AT_MOST || held > BYTES_AT_MOST {
            return None;
        }
        mirrors.copies.set(copies);
        mirrors.bytes.set(held);
        Some(Self { mirrors: Rc::clone(mirrors), bytes })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.mirrors.copies.set(self.mirrors.copies.get() - 1);
        self.mirrors.bytes.set(self.mirrors.bytes.get() - self.bytes);
    }
}

/// Where a copy of this request is to go, if it is one of those that are copied.
pub(super) fn wanted<'r>(worker: &Worker, rule: &'r Rule) -> Option<&'r Route> {
    let (route, percent) = rule.mirror.as_ref()?;
    worker.chance(|rng| rng.u32(..100) < *percent).then_some(route)
}

/// Sends a copy, if all of the body is held and there is room; else counts a drop.
pub(super) fn send(errand: &Errand<'_>, route: &Route, outgoing: &Outgoing) {
    let Errand { worker, view, asker, request, admitted } = *errand;
    let meter = &view.pool(route).1.meter;
    let body = outgoing.copy();
    let place = body.as_ref().and_then(|body| Place::take(&worker.mirrors, body.held_bytes()));
    let Some((body, place)) = body.zip(place) else { return meter.mirrored(false) };
    meter.mirrored(true);
    let fresh = worker.view();
    let copy = Copy {
        view: if fresh.has_pool(route) { fresh } else { Rc::clone(view) },
        worker: Rc::clone(worker),
        route: route.clone(),
        client: Rc::clone(asker.client),
        held: Held { request: changes::same(request), note: None },
        host: admitted.host.to_owned(),
        asked_host: admitted.asked_host.to_owned(),
        framing: admitted.framing,
        length: admitted.length,
        _place: place,
    };
    tokio::task::spawn_local(timeout(TIME_AT_MOST, copy.run(body)));
}

/// A copy with all that it needs: the request itself may be over before it is.
struct Copy {
    worker: Rc<Worker>,
    view: Rc<View>,
    route: Route,
    client: Rc<Client>,
    held: Held,
    host: String,
    asked_host: String,
    framing: Option<BodyFraming>,
    length: Option<u64>,
    _place: Place,
}

impl Copy {
    async fn run(self, mut body: Outgoing) {
        let admitted = Admitted {
            host: &self.host,
            asked_host: &self.asked_host,
            framing: self.framing,
            length: self.length,
        };
        let (manners, ids) = (&self.view.manners, &self.worker.ids);
        let errand = Errand {
            worker: &self.worker,
            view: &self.view,
            asker: &Asker::of(manners, ids, &self.client, &self.held),
            request: &self.held.request,
            admitted: &admitted,
        };
        // That nothing answered is known to its endpoints already; nobody else is told.
        if let Ok(response) = trip::serve(&errand, &self.route, &mut body, Past::of_copy()).await {
            read_off(response).await;
        }
    }
}

/// Reads an answer to its end, within bounds.
async fn read_off(response: Response<ProxyBody>) {
    let ProxyBody::Stream { mut source, visit } = response.into_body() else { return };
    let mut read = 0;
    while read <= READ_BYTES {
        match poll_fn(|cx| source.poll_piece(cx)).await {
            Some(Ok(piece)) => read += piece.len(),
            Some(Err(ResponseError::Endpoint(reason))) => return visit.met(Failure::http(reason)),
            Some(Err(ResponseError::Client | ResponseError::Drained)) => return,
            None => return visit.answered(),
        }
    }
}

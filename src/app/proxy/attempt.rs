//! One try at one endpoint.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::time::{sleep, sleep_until};

use crate::app::worker::{PoolLocal, Worker};
use crate::logic::breaker::Full;
use crate::logic::outcome::{Failure, Reason};
use crate::logic::retry::Reached;
use crate::logic::route::Timeouts;
use crate::net::h1::ResponseHead;
use crate::net::upstream::{
    ClientFault, Connection, Cuts, Exchange, Free, Outgoing, Pool, Received, ResponseBody,
    ResponseError, TryError, Tunnel, connect,
};

use super::admit::Admitted;
use super::asker::Asker;
use super::choose::Way;
use super::forward;
use super::patience::{Patience, Ring, Waits};
use super::tunnel;
use super::visit::Visit;

/// A response of known length up to this is passed on only when it is complete, so that one which
/// is cut can still be asked for elsewhere.
const COMMIT_BYTES: u64 = 64 * 1024;

/// What is asked, the same at every try.
pub(super) struct Ask<'a> {
    pub(super) request: &'a Request<()>,
    pub(super) admitted: &'a Admitted<'a>,
    pub(super) asker: &'a Asker<'a>,
    pub(super) via: &'a str,
    pub(super) timeouts: Timeouts,
    pub(super) head_bytes_at_most: usize,
    /// Sending it twice does no harm.
    pub(super) idempotent: bool,
    /// The endpoint is asked to go on in another protocol.
    pub(super) switches: bool,
}

/// Why a try gave no response.
#[derive(Debug)]
pub(super) enum Ended {
    /// The endpoint failed.
    Failed { failure: Failure, reached: Reached },
    /// The endpoint's verdict turned down while its answer was awaited.
    Cut { reached: Reached },
    /// The client failed.
    Client(ClientFault),
    /// This process is out of something.
    Local,
    /// A limit left no room for it for too long.
    Full(Full),
}

impl From<TryError> for Ended {
    fn from(error: TryError) -> Self {
        match error {
            TryError::Endpoint { failure, reached } => Self::Failed { failure, reached },
            TryError::Client(fault) => Self::Client(fault),
            TryError::Local(_) => Self::Local,
        }
    }
}

/// An answer that has begun: its head, and the exchange that its body comes by.
pub(super) struct Begun {
    pub(super) head: ResponseHead,
    exchange: Exchange,
    cuts: Cuts,
}

/// Tries once: connects (or reuses), sends, and waits for the head.
pub(super) async fn attempt(
    worker: &Worker,
    local: &PoolLocal,
    ask: &Ask<'_>,
    outgoing: &mut Outgoing,
    visit: &Visit,
    way: Way,
) -> Result<Begun, Ended> {
    let cuts = visit.home().cuts();
    let (connection, ready) = match way {
        Way::Free(Free::Open(connection)) => (connection, visit.began()),
        way @ (Way::Free(Free::Room(_)) | Way::Line { .. }) => {
            let mut timeout = ask.timeouts.connect;
            if visit.is_trial() {
                timeout = timeout.min(local.latency.borrow().slow_bound());
            }
            let opened = open(visit.home(), cuts, timeout, way).await;
            if matches!(opened, Err(Ended::Local)) {
                worker.complain("no connection can be opened: out of descriptors, ports or memory");
            }
            (opened?, Instant::now())
        }
    };
    let mut exchange = worker.scratch(|head| {
        let switch_to = ask.switches.then_some(tunnel::PROTOCOL);
        let asker = ask.asker;
        forward::write_request_head(head, ask.request, ask.admitted, asker, ask.via, switch_to);
        let method = ask.request.method().clone();
        Exchange::begin(connection, head, method, ask.admitted.framing, ask.head_bytes_at_most)
    })?;
    if ask.switches {
        exchange.switch_to(tunnel::PROTOCOL);
    }
    let mut patience = Patience::new(ask.waits(local), ready);
    let wait = Wait { cuts, patience: &mut patience, ready };
    let head = wait.head(&mut exchange, ask, outgoing, visit).await?;
    let now = Instant::now();
    // How long a client takes to send its body says nothing about the endpoint.
    if let Some(since) = patience.waiting_since() {
        local.latency.borrow_mut().record(now.saturating_duration_since(since));
    }
    visit.head(head.status.as_u16(), now);
    Ok(Begun { head, exchange, cuts })
}

impl Ask<'_> {
    fn waits(&self, local: &PoolLocal) -> Waits {
        let latency = local.latency.borrow();
        let (stall, slow) = (latency.stall_bound(), latency.slow_bound());
        Waits { stall, slow, response: self.timeouts.response, idle: self.timeouts.idle }
    }
}

/// Opens a connection, or waits until one is free or may be opened; each takes the connect timeout at
/// most.
async fn open(home: &Pool, cuts: Cuts, timeout: Duration, way: Way) -> Result<Connection, Ended> {
    let cut = || Ended::Cut { reached: Reached::Nothing };
    let free = match way {
        Way::Free(free) => free,
        Way::Line { pending, full } => tokio::select! {
            biased;
            free = home.wait() => {
                drop(pending);
                free
            }
            () = home.until_cut(cuts, true) => return Err(cut()),
            () = sleep(timeout) => return Err(Ended::Full(full)),
        },
    };
    let slot = match free {
        Free::Open(connection) => return Ok(connection),
        Free::Room(slot) => slot,
    };
    tokio::select! {
        biased;
        opened = connect(home.target.address, slot) => Ok(opened?),
        () = home.until_cut(cuts, true) => Err(cut()),
        () = sleep(timeout) => {
            Err(Ended::Failed { failure: Failure::connect(Reason::Timeout), reached: Reached::Nothing })
        }
    }
}

/// Waits for a response head. A wait beyond the pool's bounds is reported as evidence, and goes on:
/// only the verdict or a timeout ends it, or, where the endpoint must prove itself, the slow bound.
struct Wait<'a> {
    cuts: Cuts,
    patience: &'a mut Patience,
    /// When the connection was there.
    ready: Instant,
}

impl Wait<'_> {
    async fn head(
        self,
        exchange: &mut Exchange,
        ask: &Ask<'_>,
        outgoing: &mut Outgoing,
        visit: &Visit,
    ) -> Result<ResponseHead, Ended> {
        let Self { cuts, patience, ready } = self;
        if exchange.is_sent() {
            patience.sent(ready);
        }
        let mut cut = pin!(visit.home().until_cut(cuts, ask.idempotent));
        let mut clock = pin!(sleep_until(patience.due().into()));
        poll_fn(|cx| {
            if let Poll::Ready(head) = exchange.poll_head(outgoing, cx) {
                return Poll::Ready(head.map_err(Ended::from));
            }
            if cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Ended::Cut { reached: exchange.reached() }));
            }
            if patience.waiting_since().is_none()
                && exchange.is_sent()
                && let Some(ring) = patience.sent(Instant::now())
            {
                clock.as_mut().reset(ring.into());
            }
            while clock.as_mut().poll(cx).is_ready() {
                let moved = outgoing.read_bytes() + exchange.written_bytes();
                match patience.ring(Instant::now(), moved, exchange.waits_for_client()) {
                    Ring::Again(next) => clock.as_mut().reset(next.into()),
                    Ring::Stalled(next) => {
                        visit.met(Failure::http(Reason::Stall));
                        clock.as_mut().reset(next.into());
                    }
                    Ring::Slow(next) => {
                        let failure = Failure::http(Reason::Slow);
                        visit.met(failure);
                        if visit.is_trial() {
                            let reached = exchange.reached();
                            return Poll::Ready(Err(Ended::Failed { failure, reached }));
                        }
                        clock.as_mut().reset(next.into());
                    }
                    Ring::ClientIdle => return Poll::Ready(Err(Ended::Client(ClientFault::Idle))),
                    Ring::Timeout => {
                        let failure = Failure::http(Reason::Timeout);
                        let reached = exchange.reached();
                        return Poll::Ready(Err(Ended::Failed { failure, reached }));
                    }
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// A body that is passed on only when it is complete.
pub(super) struct Pending {
    head: ResponseHead,
    body: Box<ResponseBody>,
    cuts: Cuts,
}

/// How much of an answer there is.
pub(super) enum Part {
    /// All that the client has to wait for.
    Enough(ResponseHead, Received),
    /// Not yet.
    Pending(Pending),
}

impl Begun {
    /// Whether the endpoint goes on in another protocol.
    pub(super) fn is_switch(&self) -> bool {
        self.head.status == StatusCode::SWITCHING_PROTOCOLS
    }

    /// The head, and the connection for that other protocol.
    pub(super) fn into_tunnel(self) -> (ResponseHead, Tunnel, Cuts) {
        (self.head, self.exchange.into_tunnel(), self.cuts)
    }

    /// Takes the body: all of it if it has arrived or may have to be asked for again, else as a
    /// stream.
    pub(super) fn receive(
        self,
        ask: &Ask<'_>,
        outgoing: &mut Outgoing,
        visit: &Visit,
    ) -> Result<Part, Ended> {
        let Self { head, exchange, cuts } = self;
        let is_sent = exchange.is_sent();
        let rest = if is_sent { None } else { Some(outgoing.take()) };
        let home = Rc::clone(visit.home());
        let mut body = ResponseBody::new(exchange, &head, rest, home, ask.timeouts.idle);
        if !is_sent {
            return Ok(Part::Enough(head, Received::Stream(body)));
        }
        if let Some(whole) = body.try_whole().map_err(cut_body)? {
            visit.answered();
            return Ok(Part::Enough(head, Received::Whole(whole)));
        }
        let is_small = body.remaining().is_some_and(|left| left <= COMMIT_BYTES);
        if is_small && ask.idempotent && outgoing.is_held() {
            Ok(Part::Pending(Pending { head, body, cuts }))
        } else {
            Ok(Part::Enough(head, Received::Stream(body)))
        }
    }

    /// The request goes elsewhere, and nobody wants this answer.
    pub(super) fn discard(self, ask: &Ask<'_>, visit: &Visit) {
        let Self { head, exchange, .. } = self;
        // What is still being sent is ended by a reset.
        if exchange.is_sent() {
            let home = Rc::clone(visit.home());
            ResponseBody::new(exchange, &head, None, home, ask.timeouts.idle).drain();
        }
    }
}

impl Pending {
    /// Waits for all of the body.
    pub(super) async fn complete(
        mut self,
        visit: &Visit,
    ) -> Result<(ResponseHead, Received), Ended> {
        let whole: Result<Bytes, ResponseError> = tokio::select! {
            biased;
            whole = self.body.collect() => whole,
            () = visit.home().until_cut(self.cuts, true) => {
                return Err(Ended::Cut { reached: Reached::Something });
            }
        };
        let whole = whole.map_err(cut_body)?;
        visit.answered();
        Ok((self.head, Received::Whole(whole)))
    }
}

fn cut_body(error: ResponseError) -> Ended {
    match error {
        ResponseError::Endpoint(reason) => {
            Ended::Failed { failure: Failure::http(reason), reached: Reached::Something }
        }
        ResponseError::Client => Ended::Client(ClientFault::Aborted),
    }
}

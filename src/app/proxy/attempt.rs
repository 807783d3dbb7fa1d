//! One try at one endpoint.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::TRAILER;
use http::{Request, StatusCode, Version};
use tokio::time::sleep;

use crate::app::worker::{PoolLocal, Worker};
use crate::logic::breaker::Full;
use crate::logic::outcome::{Failure, Reason};
use crate::logic::retry::Reached;
use crate::logic::route::{HeaderChanges, Timeouts};
use crate::net::h1::{Framing, ResponseHead};
use crate::net::trailers;
use crate::net::upstream::{
    Caller, ClientFault, Cuts, Exchange, Free, Line, Outgoing, Pool, Received, ResponseBody,
    ResponseError, Stage, TryError, Tunnel,
};

use super::admit::Admitted;
use super::asker::Asker;
use super::choose::Way;
use super::drill::{self, Part as DrillPart};
use super::early::Early;
use super::patience::{Patience, Waits};
use super::tunnel;
use super::visit::Visit;
use super::wait::{Until, Waiting};
use super::{forward, forward_h2};

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
    /// Bytes of its body in a second, at least; zero is no bound.
    pub(super) body_rate: u64,
    pub(super) head_bytes_at_most: usize,
    /// Sending it twice does no harm.
    pub(super) idempotent: bool,
    /// It may be asked of two endpoints at once: it has no body, and its route allows it.
    pub(super) may_hedge: bool,
    /// The endpoint is asked to go on in another protocol.
    pub(super) switches: bool,
    /// Where interim answers to it go, if anybody wants them.
    pub(super) early: Option<&'a Early>,
    /// What its route changes of an answer's head.
    pub(super) changes: &'a HeaderChanges,
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

impl Ended {
    /// The endpoint's answer breaks the rules.
    pub(super) fn malformed() -> Self {
        let failure = Failure::http(Reason::Malformed);
        Self::Failed { failure, reached: Reached::Something }
    }
}

impl From<TryError> for Ended {
    fn from(error: TryError) -> Self {
        match error {
            TryError::Endpoint { failure, reached } => Self::Failed { failure, reached },
            TryError::Client(fault) => Self::Client(fault),
            TryError::Local(_) => Self::Local,
            TryError::Full(full) => Self::Full(full),
        }
    }
}

/// An answer that has begun: its head, and the exchange that its body comes by.
pub(super) struct Begun {
    pub(super) head: ResponseHead,
    pub(super) exchange: Exchange,
    pub(super) cuts: Cuts,
}

/// How far a try has come.
#[allow(clippy::large_enum_variant, reason = "what nearly every request gets is not boxed")]
pub(super) enum Progress {
    /// An answer has begun.
    Begun(Begun),
    /// It has waited for so long that another endpoint may be asked beside it.
    Stalled(Box<Waiting>),
}

/// Tries once: connects (or reuses) within `connect_timeout`, sends, and waits for the head.
pub(super) async fn attempt(
    worker: &Worker,
    local: &PoolLocal,
    ask: &Ask<'_>,
    outgoing: &mut Outgoing,
    visit: &Visit,
    (way, connect): (Way, Connect),
) -> Result<Progress, Ended> {
    let mut cuts = visit.home().cuts();
    let (way, part) = match &visit.home().staging {
        None => (way, DrillPart::None),
        Some(staging) => drill::stage(worker, staging, ask, visit.home(), (way, &mut cuts))?,
    };
    let (line, ready) = match way {
        Way::Free(Free::Open(connection)) => (Line::H1(connection), visit.began()),
        Way::Free(Free::Seat(seat)) => (Line::H2(seat), visit.began()),
        way @ (Way::Free(Free::Room(_) | Free::Opening(_)) | Way::Line { .. }) => {
            let caller = ask.asker.client.caller();
            // It would make the future of every request large.
            let opening = open((worker, visit.home()), caller, cuts, connect, way);
            let opened = Box::pin(opening).await;
            if matches!(opened, Err(Ended::Local)) {
                worker.complain("no connection can be opened: out of descriptors, ports or memory");
            }
            (opened?, Instant::now())
        }
    };
    let span = visit.span();
    let exchange = match line {
        Line::H1(connection) => worker.scratch(|head| {
            let switch_to = ask.switches.then_some(tunnel::PROTOCOL);
            let asker = (ask.asker, span.as_ref());
            forward::write_request_head(head, ask.request, ask.admitted, asker, ask.via, switch_to);
            let method = ask.request.method().clone();
            let framing = ask.admitted.framing;
            let at_most = ask.head_bytes_at_most;
            Exchange::begin(connection, head, method, framing, at_most, switch_to)
        })?,
        Line::H2(seat) => {
            let target = &visit.home().target;
            let scheme = visit.home().scheme();
            let request = forward_h2::request(ask, span.as_ref(), scheme, target.address);
            // What HTTP/2 has no words for, no client should have said.
            let request = request.ok_or(Ended::Client(ClientFault::Aborted))?;
            Exchange::begin_h2(seat, request, ask.admitted.framing.is_some())?
        }
    };
    let mut patience = Patience::new(ask.waits(local), ready);
    if exchange.is_sent() {
        patience.sent(ready);
    }
    let is_repeatable = ask.idempotent;
    let mut waiting = Waiting { exchange, cuts, patience, is_repeatable, part };
    let until = match (visit.is_trial(), ask.may_hedge) {
        (true, _) => Until::Slow,
        (false, true) => Until::Stalled,
        (false, false) => Until::Timeout,
    };
    match waiting.head(Some(ask), outgoing, visit, until).await? {
        Some(head) => Ok(Progress::Begun(waiting.begun(head, local, visit))),
        None => Ok(Progress::Stalled(Box::new(waiting))),
    }
}

/// How long a connection may take to open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connect {
    /// At most.
    pub(super) timeout: Duration,
    /// What it is called when that is over.
    pub(super) reason: Reason,
}

impl Ask<'_> {
    fn is_h2(&self) -> bool {
        self.request.version() == Version::HTTP_2
    }

    /// Whether the client can take what follows a body.
    fn takes_trailers(&self) -> bool {
        self.is_h2() || trailers::are_accepted(self.request.headers())
    }

    fn waits(&self, local: &PoolLocal) -> Waits {
        let latency = local.latency.borrow();
        let (stall, slow) = (latency.stall_bound(), latency.slow_bound());
        let Timeouts { response, idle, .. } = self.timeouts;
        Waits { stall, slow, response, idle, rate: self.body_rate }
    }
}

/// Opens a connection, or waits until one is free or may be opened, and until there is a descriptor for
/// it; each takes the timeout of `connect` at most.
async fn open(
    (worker, home): (&Worker, &Rc<Pool>),
    caller: Caller,
    cuts: Cuts,
    connect: Connect,
    way: Way,
) -> Result<Line, Ended> {
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
            () = sleep(connect.timeout) => return Err(Ended::Full(full)),
        },
    };
    home.prepare().await?;
    if matches!(free, Free::Room(_)) && !worker.shared.descriptors.has_room() {
        tokio::select! {
            () = worker.make_room(connect.timeout) => {}
            () = home.until_cut(cuts, true) => return Err(cut()),
        }
    }
    let stage = Stage::default();
    tokio::select! {
        biased;
        opened = home.reach(free, caller, &stage, connect.timeout) => Ok(opened?),
        () = home.until_cut(cuts, true) => Err(cut()),
        () = sleep(connect.timeout) => {
            let failure = Failure { reason: connect.reason, ..stage.timeout() };
            Err(Ended::Failed { failure, reached: Reached::Nothing })
        }
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
    pub(super) fn into_tunnel(self) -> (ResponseHead, Option<Tunnel>, Cuts) {
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
        let Self { mut head, exchange, cuts } = self;
        if head.framing == Framing::Chunked && !ask.takes_trailers() {
            head.headers.remove(TRAILER);
        }
        if exchange.has_whole(&head) {
            let whole = exchange.into_whole(&head, visit.home());
            visit.answered();
            return Ok(Part::Enough(head, Received::Whole(whole)));
        }
        let is_sent = exchange.is_sent();
        let rest = if is_sent { None } else { Some(outgoing.take()) };
        let home = Rc::clone(visit.home());
        let idle = ask.timeouts.idle;
        let mut body = ResponseBody::new(exchange, &head, rest, home, idle, ask.is_h2());
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
            ResponseBody::new(exchange, &head, None, home, ask.timeouts.idle, false).drain();
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
        if self.body.has_trailers() {
            self.body.keep(whole);
            return Ok((self.head, Received::Stream(self.body)));
        }
        Ok((self.head, Received::Whole(whole)))
    }
}

fn cut_body(error: ResponseError) -> Ended {
    match error {
        ResponseError::Endpoint(reason) => {
            Ended::Failed { failure: Failure::http(reason), reached: Reached::Something }
        }
        ResponseError::Client => Ended::Client(ClientFault::Aborted),
        ResponseError::Drained => Ended::Cut { reached: Reached::Something },
    }
}

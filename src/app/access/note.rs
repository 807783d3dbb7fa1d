//! What is known of one request, until it is over.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{Method, Request, Response, StatusCode};
use smallvec::SmallVec;

use crate::app::proxy::{Client, ProxyBody, Reason, SpanId};
use crate::app::shared::Manners;
use crate::app::worker::Worker;
use crate::logic::id::Place;
use crate::logic::outcome::{self, Failure, Layer};
use crate::logic::route::{Route, RouteSpec};

use super::body::NotedBody;
use super::line;

/// Tries that are listed, at most; all are counted.
const TRIES_LISTED: usize = 8;

/// What a line says of a request whose client went away before it got a status, as nginx has it.
const CLIENT_WENT: u16 = 499;

/// A trace, and our own part of it, in hex.
pub type TraceIds = ([u8; 32], SpanId);

/// How a request ended that did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client went away, or took nothing for too long.
    ClientAbort,
    /// The endpoint's answer ended in the middle.
    Cut,
    /// An answer of our own.
    Own(Reason),
    /// This process ended.
    Shutdown,
    /// Nothing moved in a tunnel for too long.
    Idle,
    /// The endpoint is drained, and the time of what lasts there is up.
    Drained,
}

impl Ending {
    /// The word in the line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientAbort => "client_abort",
            Self::Cut => "cut",
            Self::Own(reason) => reason.as_str(),
            Self::Shutdown => "shutdown",
            Self::Idle => "idle",
            Self::Drained => "drained",
        }
    }
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was given up on: by a verdict, or because its client went.
    Left,
    /// This status came.
    Status(u16),
    /// It failed.
    Failed(Failure),
    /// The rest of the request did not come.
    Client,
}

/// A try at one endpoint.
#[derive(Debug)]
pub(super) struct Try {
    pub(super) endpoint: SocketAddr,
    pub(super) place: Place,
    pub(super) fate: Fate,
    pub(super) elapsed: Option<Duration>,
    #[cfg(feature = "otlp")]
    pub(super) leg: super::story::LegNote,
}

/// What a line is made of. When the last one who holds it lets go, the line is written.
pub struct Note {
    worker: Rc<Worker>,
    pub(super) manners: Arc<Manners>,
    pub(super) client: Rc<Client>,
    began: Instant,
    /// When nobody waited for any more of it, in time since its beginning.
    over: Cell<Option<Duration>>,
    /// Its spans are exported.
    is_sampled: bool,
    /// How it goes on, where its route changes that: the target and the host.
    #[cfg(feature = "otlp")]
    pub(super) goes_on: RefCell<Option<(http::Uri, String)>>,
    pub(super) request: RefCell<Request<()>>,
    from: Cell<Option<IpAddr>>,
    pub(super) scheme: Cell<&'static str>,
    pub(super) request_id: RefCell<SmallVec<[u8; 32]>>,
    pub(super) trace: Cell<Option<TraceIds>>,
    pub(super) route: RefCell<Option<Arc<str>>>,
    pub(super) pool: RefCell<Option<Arc<str>>>,
    pub(super) status: Cell<u16>,
    pub(super) first_byte: Cell<Option<Duration>>,
    pub(super) read_bytes: Rc<Cell<u64>>,
    pub(super) sent_bytes: Cell<u64>,
    pub(super) ending: Cell<Option<Ending>>,
    pub(super) tries: RefCell<SmallVec<[Try; 1]>>,
    pub(super) tries_counted: Cell<u32>,
}

impl Note {
    /// A request has arrived; `None` where nothing is logged and it is not sampled.
    #[must_use]
    pub fn begin(
        worker: &Rc<Worker>,
        manners: &Arc<Manners>,
        client: &Rc<Client>,
        is_sampled: bool,
    ) -> Option<Rc<Self>> {
        if !manners.access_log.is_on() && !is_sampled {
            return None;
        }
        Some(Rc::new(Self {
            worker: Rc::clone(worker),
            manners: Arc::clone(manners),
            client: Rc::clone(client),
            began: Instant::now(),
            over: Cell::new(None),
            is_sampled,
            #[cfg(feature = "otlp")]
            goes_on: RefCell::default(),
            request: RefCell::default(),
            from: Cell::new(None),
            scheme: Cell::new(client.scheme()),
            request_id: RefCell::default(),
            trace: Cell::new(None),
            route: RefCell::default(),
            pool: RefCell::default(),
            status: Cell::new(0),
            first_byte: Cell::new(None),
            read_bytes: Rc::default(),
            sent_bytes: Cell::new(0),
            ending: Cell::new(None),
            tries: RefCell::default(),
            tries_counted: Cell::new(0),
        }))
    }

    /// Whom the request is for, and by what names it is known.
    pub fn asked_by(
        &self,
        ip: IpAddr,
        scheme: &'static str,
        request_id: Option<&[u8]>,
        trace: Option<TraceIds>,
    ) {
        self.from.set(Some(ip));
        self.scheme.set(scheme);
        self.request_id.borrow_mut().extend_from_slice(request_id.unwrap_or_default());
        self.trace.set(trace);
    }

    /// The client's address.
    pub(super) fn from(&self) -> IpAddr {
        self.from.get().unwrap_or_else(|| self.client.address.ip().to_canonical())
    }

    /// The route is found.
    pub fn ruled(&self, spec: &RouteSpec) {
        *self.route.borrow_mut() = Some(Arc::clone(&spec.name));
    }

    /// One of its pools is asked.
    pub fn routed(&self, route: &Route) {
        *self.pool.borrow_mut() = Some(Arc::clone(&route.pool_name));
    }

    /// Counts bytes of the request's body.
    #[must_use]
    pub fn read_bytes(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.read_bytes)
    }

    /// The answer begins; the note goes on with its body.
    #[must_use]
    pub fn answered(
        self: Rc<Self>,
        method: &Method,
        response: Response<ProxyBody>,
    ) -> Response<ProxyBody> {
        let status = response.status();
        self.status.set(status.as_u16());
        self.first_byte.set(Some(self.began.elapsed()));
        if let Some(reason) = response.extensions().get::<Reason>() {
            self.ended(Ending::Own(*reason));
        }
        let is_sent = *method != Method::HEAD
            && !status.is_informational()
            && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        response.map(|body| ProxyBody::Noted(Box::new(NotedBody::new(body, self, is_sent))))
    }

    /// So many bytes went either way in a tunnel.
    pub fn carried(&self, up: usize, down: usize) {
        self.read_bytes.set(self.read_bytes.get() + up as u64);
        self.sent(down);
    }

    /// So many bytes of the answer's body were handed over.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.set(self.sent_bytes.get() + bytes as u64);
    }

    /// It did not end well; what is said first counts.
    pub fn ended(&self, ending: Ending) {
        if self.ending.get().is_none() {
            // Where the whole worker ends, nobody else is to blame.
            let is_over = self.worker.access.is_over();
            self.ending.set(Some(if is_over { Ending::Shutdown } else { ending }));
        }
    }

    /// Nobody waits for any more of it, or of its tunnel.
    pub fn over(&self) {
        self.over.set(Some(self.began.elapsed()));
    }

    /// Whether its spans are exported.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        cfg!(feature = "otlp") && self.is_sampled
    }

    /// From its beginning until it was over, or until now: a hedge that lost may last longer.
    pub(super) fn elapsed(&self) -> Duration {
        self.over.get().unwrap_or_else(|| self.began.elapsed())
    }

    /// When it arrived, in milliseconds since 1970.
    pub(super) fn unix_ms(&self) -> u64 {
        u64::try_from(self.since_1970().as_millis()).unwrap_or(0)
    }

    /// The same, as it is.
    pub(super) fn since_1970(&self) -> Duration {
        let arrived = SystemTime::now().checked_sub(self.began.elapsed());
        let since = arrived.and_then(|arrived| arrived.duration_since(UNIX_EPOCH).ok());
        since.unwrap_or_default()
    }

    /// How long ago that was.
    #[cfg(feature = "otlp")]
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// A new part of its trace.
    #[cfg(feature = "otlp")]
    pub(super) fn new_span(&self) -> SpanId {
        self.worker.ids.span()
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if self.status.get() == 0 {
            self.ended(Ending::ClientAbort);
            self.status.set(CLIENT_WENT);
        }
        let worker = Rc::clone(&self.worker);
        #[cfg(feature = "otlp")]
        if let Some(story) = self.story() {
            worker.shared.otlp.tell(story);
        }
        if self.manners.access_log.is_on() {
            let log = &worker.shared.access;
            worker.access.line(log, |out, scratch| line::write(out, scratch, self));
        }
    }
}

/// A request while it is served; its note keeps it in the end, without a copy.
pub struct Held {
    /// The request, without its body.
    pub request: Request<()>,
    /// Where its line is made, if one is.
    pub note: Option<Rc<Note>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(note) = &self.note {
            note.request.replace(std::mem::take(&mut self.request));
        }
    }
}

/// One try's place in a note.
pub struct TryNote {
    note: Rc<Note>,
    index: usize,
}

impl TryNote {
    /// A try at `endpoint` begins.
    #[must_use]
    pub fn begin(note: &Rc<Note>, endpoint: SocketAddr, place: &Place) -> Self {
        note.tries_counted.set(note.tries_counted.get() + 1);
        let mut tries = note.tries.borrow_mut();
        // The last one stands for all that are not listed: it is the one that was answered.
        if tries.len() == TRIES_LISTED {
            tries.pop();
        }
        tries.push(Try {
            endpoint,
            place: place.clone(),
            fate: Fate::Left,
            elapsed: None,
            #[cfg(feature = "otlp")]
            leg: super::story::LegNote::begin(note),
        });
        Self { note: Rc::clone(note), index: tries.len() - 1 }
    }

    /// A head with this status came.
    pub fn head(&self, status: u16, elapsed: Duration) {
        self.set(Fate::Status(status), elapsed);
    }

    /// The endpoint failed. One that was slow may still answer.
    pub fn failed(&self, failure: Failure, elapsed: Duration) {
        if failure.reason != outcome::Reason::Stall {
            self.set(Fate::Failed(failure), elapsed);
        }
    }

    /// The client sent no more of its body.
    pub fn client_failed(&self, elapsed: Duration) {
        self.set(Fate::Client, elapsed);
    }

    /// It is over, whatever came of it.
    pub fn over(&self, elapsed: Duration) {
        #[cfg(feature = "otlp")]
        let age = self.note.age();
        self.change(|one| {
            one.elapsed.get_or_insert(elapsed);
            #[cfg(feature = "otlp")]
            one.leg.over(age);
        });
    }

    /// Its span, if that is exported.
    #[must_use]
    pub fn span(&self) -> Option<SpanId> {
        #[cfg(feature = "otlp")]
        if self.note.is_sampled() {
            return self.note.tries.borrow().get(self.index).map(|one| one.leg.span);
        }
        None
    }

    /// The endpoint is asked by `scheme`.
    #[cfg(feature = "otlp")]
    pub fn goes_by(&self, scheme: &'static str) {
        self.change(|one| one.leg.scheme = scheme);
    }

    fn set(&self, fate: Fate, elapsed: Duration) {
        self.change(|one| (one.fate, one.elapsed) = (fate, Some(elapsed)));
    }

    fn change(&self, change: impl FnOnce(&mut Try)) {
        if let Some(one) = self.note.tries.borrow_mut().get_mut(self.index) {
            change(one);
        }
    }
}

impl Fate {
    /// The word in the line; a status has none.
    pub(super) fn word(self) -> Option<&'static str> {
        let failure = match self {
            Self::Left => return Some("left"),
            Self::Client => return Some("client"),
            Self::Status(_) => return None,
            Self::Failed(failure) => failure,
        };
        Some(match (failure.layer, failure.reason) {
            (_, outcome::Reason::Refused) => "refused",
            (_, outcome::Reason::Unreachable) => "unreachable",
            (Layer::Connect | Layer::Tls, outcome::Reason::Timeout) => "connect_timeout",
            (_, outcome::Reason::Timeout) => "timeout",
            (_, outcome::Reason::Reset) => "reset",
            (_, outcome::Reason::Closed) => "closed",
            (_, outcome::Reason::Stall | outcome::Reason::Slow) => "slow",
            (_, outcome::Reason::Cut) => "cut",
            (_, outcome::Reason::Certificate(_)) => "certificate",
            (_, outcome::Reason::Handshake) => "handshake",
            (_, outcome::Reason::Status(_)) => return None,
            _ => "malformed",
        })
    }

    /// The status, where there is one.
    pub(super) fn status(self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status),
            Self::Failed(Failure { reason: outcome::Reason::Status(status), .. }) => Some(status),
            _ => None,
        }
    }
}

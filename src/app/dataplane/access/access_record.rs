//! What is known of one request, until it is over.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{Request, StatusCode};
use smallvec::SmallVec;

use crate::app::dataplane::http_policy::HttpPolicy;
use crate::app::dataplane::proxy::{Client, LocalReplyReason, SpanId, TraceIds};
use crate::logic::model::id::Locality;
use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::routing::{PoolRoute, RouteSpec};

#[cfg(feature = "otlp")]
use super::attempt_record::AttemptSpanRecord;
use super::attempt_record::{AttemptRecord, AttemptResult};
use super::sink::AccessRecordSink;

/// Tries that are listed, at most; all are counted.
const MAX_LISTED_ATTEMPTS: usize = 8;

/// How a request ended that did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEnding {
    /// The client went away, or took nothing for too long.
    ClientAbort,
    /// The endpoint's answer ended in the middle.
    Cut,
    /// An answer of our own.
    LocalReply(LocalReplyReason),
    Shutdown,
    /// Nothing moved in a tunnel for too long.
    Idle,
    /// The endpoint is drained, and the time of what lasts there is up.
    Drained,
}

impl RequestEnding {
    /// The word in the line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientAbort => "client_abort",
            Self::Cut => "cut",
            Self::LocalReply(reason) => reason.as_str(),
            Self::Shutdown => "shutdown",
            Self::Idle => "idle",
            Self::Drained => "drained",
        }
    }
}

/// What a line is made of. When the last one who holds it lets go, the line is written.
pub struct AccessRecord {
    pub(super) sink: Rc<AccessRecordSink>,
    pub(super) http_policy: Arc<HttpPolicy>,
    pub(super) client: Rc<Client>,
    began: Instant,
    /// When nobody waited for any more of it, in time since its beginning.
    ended_after: Cell<Option<Duration>>,
    /// Its spans are exported.
    is_sampled: bool,
    /// How it goes on, where its route changes that: the target and the host.
    #[cfg(feature = "otlp")]
    pub(super) rewritten_target: RefCell<Option<(http::Uri, String)>>,
    pub(super) request: RefCell<Request<()>>,
    origin_ip: Cell<Option<IpAddr>>,
    pub(super) scheme: Cell<&'static str>,
    pub(super) request_id: RefCell<SmallVec<[u8; 32]>>,
    pub(super) trace: Cell<Option<TraceIds>>,
    pub(super) route: RefCell<Option<Arc<str>>>,
    pub(super) pool: RefCell<Option<Arc<str>>>,
    pub(super) status: Cell<u16>,
    pub(super) first_byte: Cell<Option<Duration>>,
    pub(super) read_bytes: Rc<Cell<u64>>,
    pub(super) sent_bytes: Cell<u64>,
    pub(super) ending: Cell<Option<RequestEnding>>,
    pub(super) attempts: RefCell<SmallVec<[AttemptRecord; 1]>>,
    pub(super) attempt_count: Cell<u32>,
}

impl AccessRecord {
    /// A request has arrived; `None` where nothing is logged and it is not sampled.
    pub fn begin(
        sink: &Rc<AccessRecordSink>,
        policy: &Arc<HttpPolicy>,
        client: &Rc<Client>,
        is_sampled: bool,
    ) -> Option<Rc<Self>> {
        if !policy.access_log.is_on() && !is_sampled {
            return None;
        }
        Some(Rc::new(Self {
            sink: Rc::clone(sink),
            http_policy: Arc::clone(policy),
            client: Rc::clone(client),
            began: Instant::now(),
            ended_after: Cell::new(None),
            is_sampled,
            #[cfg(feature = "otlp")]
            rewritten_target: RefCell::default(),
            request: RefCell::default(),
            origin_ip: Cell::new(None),
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
            attempts: RefCell::default(),
            attempt_count: Cell::new(0),
        }))
    }

    /// Whom the request is for, and by what names it is known.
    pub fn set_origin(
        &self,
        ip: IpAddr,
        scheme: &'static str,
        request_id: Option<&[u8]>,
        trace: Option<TraceIds>,
    ) {
        self.origin_ip.set(Some(ip));
        self.scheme.set(scheme);
        self.request_id.borrow_mut().extend_from_slice(request_id.unwrap_or_default());
        self.trace.set(trace);
    }

    pub(super) fn client_ip(&self) -> IpAddr {
        self.origin_ip.get().unwrap_or_else(|| self.client.address.ip().to_canonical())
    }

    /// The route is found.
    pub fn set_route(&self, spec: &RouteSpec) {
        *self.route.borrow_mut() = Some(Arc::clone(&spec.name));
    }

    /// One of its pools is asked.
    pub fn set_pool(&self, route: &PoolRoute) {
        *self.pool.borrow_mut() = Some(Arc::clone(&route.pool_name));
    }

    /// Counts bytes of the request's body.
    pub fn read_bytes(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.read_bytes)
    }

    /// The head of the response goes to the client.
    pub fn on_response(&self, status: StatusCode) {
        self.status.set(status.as_u16());
        self.first_byte.set(Some(self.began.elapsed()));
    }

    /// So many bytes went either way in a tunnel.
    pub fn add_tunnel_bytes(&self, up: usize, down: usize) {
        self.read_bytes.set(self.read_bytes.get() + up as u64);
        self.add_sent_bytes(down);
    }

    /// So many bytes of the answer's body were handed over.
    pub fn add_sent_bytes(&self, bytes: usize) {
        self.sent_bytes.set(self.sent_bytes.get() + bytes as u64);
    }

    /// It did not end well; what is said first counts.
    pub fn set_ending(&self, ending: RequestEnding) {
        if self.ending.get().is_none() {
            // Where the whole worker ends, nobody else is to blame.
            let is_shutdown = self.sink.is_shut_down();
            self.ending.set(Some(if is_shutdown { RequestEnding::Shutdown } else { ending }));
        }
    }

    /// Nobody waits for any more of it, or of its tunnel.
    pub fn finish(&self) {
        self.ended_after.set(Some(self.began.elapsed()));
    }

    /// Whether its spans are exported.
    pub fn is_sampled(&self) -> bool {
        cfg!(feature = "otlp") && self.is_sampled
    }

    /// From its beginning until it was over, or until now: a hedge that lost may last longer.
    pub(super) fn elapsed(&self) -> Duration {
        self.ended_after.get().unwrap_or_else(|| self.began.elapsed())
    }

    /// When it arrived, in milliseconds since 1970.
    pub(super) fn unix_ms(&self) -> u64 {
        u64::try_from(self.since_unix_epoch().as_millis()).unwrap_or(0)
    }

    /// The same, as it is.
    pub(super) fn since_unix_epoch(&self) -> Duration {
        let arrived = SystemTime::now().checked_sub(self.began.elapsed());
        let since = arrived.and_then(|arrived| arrived.duration_since(UNIX_EPOCH).ok());
        since.unwrap_or_default()
    }

    /// How long ago that was.
    #[cfg(feature = "otlp")]
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// The span of the attempt that begins now. Where nothing is exported it is never read.
    #[cfg(feature = "otlp")]
    fn begin_span(&self) -> AttemptSpanRecord {
        let ordinal = self.attempt_count.get() - 1;
        let (span, started_after) = if self.is_sampled() {
            (self.sink.new_span_id(), self.age())
        } else {
            ([b'0'; 16], Duration::ZERO)
        };
        AttemptSpanRecord { span, ordinal, started_after, ended_after: None, scheme: "" }
    }
}

/// A request while it is served; its note keeps it in the end, without a copy.
pub struct RecordedRequest {
    /// The request, without its body.
    pub request: Request<()>,
    /// Where its line is made, if one is.
    pub record: Option<Rc<AccessRecord>>,
}

impl Drop for RecordedRequest {
    fn drop(&mut self) {
        if let Some(record) = &self.record {
            record.request.replace(std::mem::take(&mut self.request));
        }
    }
}

/// One try's place in a note.
pub struct AttemptRecordHandle {
    record: Rc<AccessRecord>,
    index: usize,
}

impl AttemptRecordHandle {
    /// A try at `endpoint` begins.
    pub fn begin(record: &Rc<AccessRecord>, endpoint: SocketAddr, place: &Locality) -> Self {
        record.attempt_count.set(record.attempt_count.get() + 1);
        let mut attempts = record.attempts.borrow_mut();
        // The last one stands for all that are not listed: it is the one that was answered.
        if attempts.len() == MAX_LISTED_ATTEMPTS {
            attempts.pop();
        }
        attempts.push(AttemptRecord {
            endpoint,
            place: place.clone(),
            result: AttemptResult::Abandoned,
            elapsed: None,
            #[cfg(feature = "otlp")]
            span_record: record.begin_span(),
        });
        Self { record: Rc::clone(record), index: attempts.len() - 1 }
    }

    /// A head with this status came.
    pub fn set_status(&self, status: u16, elapsed: Duration) {
        self.set_result(AttemptResult::Status(status), elapsed);
    }

    /// The endpoint failed. One that was slow may still answer.
    pub fn set_failed(&self, failure: Failure, elapsed: Duration) {
        if failure.reason != FailureReason::Stall {
            self.set_result(AttemptResult::Failed(failure), elapsed);
        }
    }

    /// The client sent no more of its body.
    pub fn set_client_failed(&self, elapsed: Duration) {
        self.set_result(AttemptResult::Client, elapsed);
    }

    /// It is over, whatever came of it.
    pub fn finish(&self, elapsed: Duration) {
        #[cfg(feature = "otlp")]
        let age = self.record.age();
        self.update(|attempt| {
            attempt.elapsed.get_or_insert(elapsed);
            #[cfg(feature = "otlp")]
            attempt.span_record.end(age);
        });
    }

    /// Its span, if that is exported.
    pub fn span(&self) -> Option<SpanId> {
        #[cfg(feature = "otlp")]
        if self.record.is_sampled() {
            return self
                .record
                .attempts
                .borrow()
                .get(self.index)
                .map(|attempt| attempt.span_record.span);
        }
        None
    }

    /// The endpoint is asked by `scheme`.
    #[cfg(feature = "otlp")]
    pub fn set_scheme(&self, scheme: &'static str) {
        self.update(|attempt| attempt.span_record.scheme = scheme);
    }

    fn set_result(&self, result: AttemptResult, elapsed: Duration) {
        self.update(|attempt| (attempt.result, attempt.elapsed) = (result, Some(elapsed)));
    }

    fn update(&self, change: impl FnOnce(&mut AttemptRecord)) {
        if let Some(attempt) = self.record.attempts.borrow_mut().get_mut(self.index) {
            change(attempt);
        }
    }
}

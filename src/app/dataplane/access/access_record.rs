//! The data of one request for its log line and its trace.

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

/// Limit of attempts that are listed; all are counted.
const MAX_LISTED_ATTEMPTS: usize = 8;

/// Why a request did not end normally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEnding {
    /// The client disconnected, or read nothing for too long.
    ClientAbort,
    /// The endpoint's response was truncated.
    Cut,
    LocalReply(LocalReplyReason),
    Shutdown,
    /// Nothing moved in a tunnel for the idle timeout.
    Idle,
    /// The endpoint is drained, and its drain deadline has passed.
    Drained,
}

impl RequestEnding {
    /// The word in the log line.
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

/// The data of a log line, which is written when the last reference is dropped.
pub struct AccessRecord {
    pub(super) sink: Rc<AccessRecordSink>,
    pub(super) http_policy: Arc<HttpPolicy>,
    pub(super) client: Rc<Client>,
    began: Instant,
    /// Time from the request's start to its end; a losing hedge may outlast it.
    ended_after: Cell<Option<Duration>>,
    is_sampled: bool,
    /// The target and host that the route's rewrite produced.
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
    /// Starts the record of a request; `None` if it is neither logged nor sampled.
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

    /// Sets the client and the identifiers of the request.
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

    pub fn set_route(&self, spec: &RouteSpec) {
        *self.route.borrow_mut() = Some(Arc::clone(&spec.name));
    }

    /// Sets the pool that the request is forwarded to.
    pub fn set_pool(&self, route: &PoolRoute) {
        *self.pool.borrow_mut() = Some(Arc::clone(&route.pool_name));
    }

    /// The counter of request body bytes.
    pub fn read_bytes(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.read_bytes)
    }

    /// Records that the response head goes to the client.
    pub fn on_response(&self, status: StatusCode) {
        self.status.set(status.as_u16());
        self.first_byte.set(Some(self.began.elapsed()));
    }

    /// Counts tunnel bytes to the endpoint (`up`) and to the client (`down`).
    pub fn add_tunnel_bytes(&self, up: usize, down: usize) {
        self.read_bytes.set(self.read_bytes.get() + up as u64);
        self.add_sent_bytes(down);
    }

    /// Counts bytes of the response body.
    pub fn add_sent_bytes(&self, bytes: usize) {
        self.sent_bytes.set(self.sent_bytes.get() + bytes as u64);
    }

    /// Sets why the request did not end normally; the first reason stays.
    pub fn set_ending(&self, ending: RequestEnding) {
        if self.ending.get().is_none() {
            // A worker that exits ends its requests, whatever else is reported.
            let is_shutdown = self.sink.is_shut_down();
            self.ending.set(Some(if is_shutdown { RequestEnding::Shutdown } else { ending }));
        }
    }

    /// Records the end of the request, or of its tunnel.
    pub fn finish(&self) {
        self.ended_after.set(Some(self.began.elapsed()));
    }

    /// Whether its spans are exported.
    pub fn is_sampled(&self) -> bool {
        cfg!(feature = "otlp") && self.is_sampled
    }

    /// Time from the start to the end, or until now.
    pub(super) fn elapsed(&self) -> Duration {
        self.ended_after.get().unwrap_or_else(|| self.began.elapsed())
    }

    /// Arrival in milliseconds since the Unix epoch.
    pub(super) fn unix_ms(&self) -> u64 {
        u64::try_from(self.since_unix_epoch().as_millis()).unwrap_or(0)
    }

    /// Arrival as a duration since the Unix epoch.
    pub(super) fn since_unix_epoch(&self) -> Duration {
        let arrived = SystemTime::now().checked_sub(self.began.elapsed());
        let since = arrived.and_then(|arrived| arrived.duration_since(UNIX_EPOCH).ok());
        since.unwrap_or_default()
    }

    /// Time since the arrival.
    #[cfg(feature = "otlp")]
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// The span of the attempt that begins now; unused where nothing is exported.
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

/// A request while it is served. On drop it moves into its record, without a copy.
pub struct RecordedRequest {
    /// The request without its body.
    pub request: Request<()>,
    /// Its access record, if it is logged or sampled.
    pub record: Option<Rc<AccessRecord>>,
}

impl Drop for RecordedRequest {
    fn drop(&mut self) {
        if let Some(record) = &self.record {
            record.request.replace(std::mem::take(&mut self.request));
        }
    }
}

/// A handle to the entry of one attempt.
pub struct AttemptRecordHandle {
    record: Rc<AccessRecord>,
    index: usize,
}

impl AttemptRecordHandle {
    /// Adds an entry for an attempt at `endpoint`.
    pub fn begin(record: &Rc<AccessRecord>, endpoint: SocketAddr, place: &Locality) -> Self {
        record.attempt_count.set(record.attempt_count.get() + 1);
        let mut attempts = record.attempts.borrow_mut();
        // The last entry is replaced, so that the attempt that was answered is listed.
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

    pub fn set_status(&self, status: u16, elapsed: Duration) {
        self.set_result(AttemptResult::Status(status), elapsed);
    }

    /// Records a failure. A stalled endpoint may still respond.
    pub fn set_failed(&self, failure: Failure, elapsed: Duration) {
        if failure.reason != FailureReason::Stall {
            self.set_result(AttemptResult::Failed(failure), elapsed);
        }
    }

    /// Records that the client did not send the rest of the body.
    pub fn set_client_failed(&self, elapsed: Duration) {
        self.set_result(AttemptResult::Client, elapsed);
    }

    /// Records the end of the attempt.
    pub fn finish(&self, elapsed: Duration) {
        #[cfg(feature = "otlp")]
        let age = self.record.age();
        self.update(|attempt| {
            attempt.elapsed.get_or_insert(elapsed);
            #[cfg(feature = "otlp")]
            attempt.span_record.end(age);
        });
    }

    /// Its span id, if it is exported.
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

    /// Sets the scheme of the upstream connection.
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

//! A note as what its spans are made of.

use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, Uri};

use crate::app::otlp::{Leg, Story};
use crate::app::proxy::{Parent, SpanId};

use super::note::{Ending, Note, Try};
use super::redact;

/// Longest path, and longest query.
const TARGET_BYTES: usize = 2 * 1024;

/// Longest value of any other kind.
const VALUE_BYTES: usize = 512;

/// What a trace says of itself to those who take part in it; longer, it may be left out (W3C Trace
/// Context 3.3.1.5).
const STATE_BYTES: usize = 512;

/// What a try's span has besides what its line has.
#[derive(Debug)]
pub(super) struct LegNote {
    pub(super) span: SpanId,
    /// Tries before it.
    ordinal: u32,
    /// From the request's beginning to its own.
    began: Duration,
    /// To its end.
    over: Option<Duration>,
    pub(super) scheme: &'static str,
}

impl LegNote {
    /// One more try begins. Where nothing is exported it is never looked at.
    pub(super) fn begin(note: &Note) -> Self {
        let ordinal = note.tries_counted.get() - 1;
        if !note.is_sampled() {
            return Self {
                span: [b'0'; 16],
                ordinal,
                began: Duration::ZERO,
                over: None,
                scheme: "",
            };
        }
        Self { span: note.new_span(), ordinal, began: note.age(), over: None, scheme: "" }
    }

    /// It is over, so long after the request's beginning.
    pub(super) fn over(&mut self, age: Duration) {
        self.over = Some(age);
    }
}

impl Note {
    /// The request goes on with this target, to this host.
    pub fn goes_on_as(&self, target: &Uri, host: &str) {
        if self.is_sampled() {
            *self.goes_on.borrow_mut() = Some((target.clone(), host.to_owned()));
        }
    }

    /// What its spans are made of, if they are exported.
    pub(super) fn story(&self) -> Option<Story> {
        let trace = self.trace.get().filter(|_| self.is_sampled())?;
        let request = self.request.borrow();
        let headers = request.headers();
        let parent = Parent::of(headers).map(|parent| parent.span);
        let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let host = authority.or_else(|| headers.get(HOST).map(|host| host.as_bytes()));
        let host = text(host.unwrap_or_default(), VALUE_BYTES);
        let (path, query) = self.target(request.uri());
        let url = match &*self.goes_on.borrow() {
            None => url(&host, &path, query.as_deref()),
            Some((target, host)) => {
                let (path, query) = self.target(target);
                url(host, &path, query.as_deref())
            }
        };
        // Of a client that went before its answer, the line's status is none that anybody saw.
        let status = self.first_byte.get().map(|_| self.status.get());
        Some(Story {
            began: self.since_1970(),
            elapsed: self.elapsed(),
            trace,
            parent,
            state: parent.and_then(|_| state(headers)).unwrap_or_default(),
            method: request.method().clone(),
            version: request.version(),
            scheme: self.scheme.get(),
            host,
            path,
            query,
            url,
            user_agent: headers.get(USER_AGENT).map(|value| text(value.as_bytes(), VALUE_BYTES)),
            client: self.from(),
            peer: self.client.address.ip().to_canonical(),
            status,
            reason: self.ending.get().map(Ending::as_str),
            is_cut: matches!(self.ending.get(), Some(Ending::Cut | Ending::Shutdown)),
            route: self.route.borrow().clone(),
            pool: self.pool.borrow().clone(),
            request_id: text(&self.request_id.borrow(), VALUE_BYTES),
            attempts: self.tries_counted.get(),
            legs: self.tries.borrow().iter().map(|one| leg(one, self.elapsed())).collect(),
        })
    }

    /// Path and query, as far as they may be shown.
    fn target(&self, uri: &Uri) -> (String, Option<String>) {
        let path = text(uri.path().as_bytes(), TARGET_BYTES);
        let Some(query) = uri.query() else { return (path, None) };
        if !self.manners.access_log.redact_query {
            return (path, Some(text(query.as_bytes(), TARGET_BYTES)));
        }
        let mut hidden = Vec::new();
        redact::query(&mut hidden, format!("?{query}").as_bytes());
        (path, Some(text(&hidden[1..], TARGET_BYTES)))
    }
}

fn leg(one: &Try, elapsed: Duration) -> Leg {
    let LegNote { span, ordinal, began, over, scheme } = one.leg;
    Leg {
        endpoint: one.endpoint,
        place: one.place.clone(),
        span,
        ordinal,
        began,
        over: over.unwrap_or(elapsed).max(began),
        scheme,
        status: one.fate.status(),
        outcome: one.fate.word(),
    }
}

/// What is behind the scheme of a URL.
fn url(host: &str, path: &str, query: Option<&str>) -> String {
    match query {
        None => format!("{host}{path}"),
        Some(query) => format!("{host}{path}?{query}"),
    }
}

/// All of `tracestate`, if it is not too long.
fn state(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all("tracestate").iter();
    let values: Vec<&str> = values.map(|value| value.to_str().ok()).collect::<Option<_>>()?;
    Some(values.join(",")).filter(|state| state.len() <= STATE_BYTES)
}

/// Bytes as text, cut where they are too many.
fn text(bytes: &[u8], at_most: usize) -> String {
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(at_most)]).into_owned();
    if bytes.len() > at_most {
        text.push('…');
    }
    text
}

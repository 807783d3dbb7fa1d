//! Turns an access record into the data of its spans.

use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, Uri};

use crate::app::dataplane::proxy::TraceParent;
use crate::app::ops::otlp::{AttemptSpan, RequestTrace};

use super::access_record::{AccessRecord, RequestEnding};
use super::attempt_record::{AttemptRecord, AttemptSpanRecord};
use super::redact;

/// Longest path, and longest query.
const MAX_TARGET_BYTES: usize = 2 * 1024;

/// Longest value of any other attribute.
const MAX_VALUE_BYTES: usize = 512;

/// Longer `tracestate` values may be dropped (W3C Trace Context 3.3.1.5).
const MAX_TRACESTATE_BYTES: usize = 512;

impl AccessRecord {
    /// Sets the target and host that the route's rewrite produced.
    pub fn set_rewritten_target(&self, target: &Uri, host: &str) {
        if self.is_sampled() {
            *self.rewritten_target.borrow_mut() = Some((target.clone(), host.to_owned()));
        }
    }

    /// The data of the request's spans, if they are exported.
    pub(super) fn request_trace(&self) -> Option<RequestTrace> {
        let trace = self.trace.get().filter(|_| self.is_sampled())?;
        let request = self.request.borrow();
        let headers = request.headers();
        let parent = TraceParent::from_headers(headers).map(|parent| parent.span);
        let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let host = authority.or_else(|| headers.get(HOST).map(|host| host.as_bytes()));
        let host = truncated_text(host.unwrap_or_default(), MAX_VALUE_BYTES);
        let (path, query) = self.shown_target(request.uri());
        let url = match &*self.rewritten_target.borrow() {
            None => url_without_scheme(&host, &path, query.as_deref()),
            Some((target, host)) => {
                let (path, query) = self.shown_target(target);
                url_without_scheme(host, &path, query.as_deref())
            }
        };
        // A client that disconnected before the response has not seen the line's status.
        let status = self.first_byte.get().map(|_| self.status.get());
        Some(RequestTrace {
            started: self.since_unix_epoch(),
            elapsed: self.elapsed(),
            trace,
            parent,
            tracestate: parent.and_then(|_| tracestate(headers)).unwrap_or_default(),
            method: request.method().clone(),
            version: request.version(),
            scheme: self.scheme.get(),
            host,
            path,
            query,
            url,
            user_agent: headers
                .get(USER_AGENT)
                .map(|value| truncated_text(value.as_bytes(), MAX_VALUE_BYTES)),
            client_ip: self.client_ip(),
            peer_ip: self.client.address.ip().to_canonical(),
            status,
            reason: self.ending.get().map(RequestEnding::as_str),
            is_truncated: matches!(
                self.ending.get(),
                Some(RequestEnding::Cut | RequestEnding::Shutdown)
            ),
            route: self.route.borrow().clone(),
            pool: self.pool.borrow().clone(),
            request_id: truncated_text(&self.request_id.borrow(), MAX_VALUE_BYTES),
            attempts: self.attempt_count.get(),
            attempt_spans: self
                .attempts
                .borrow()
                .iter()
                .map(|one| attempt_span(one, self.elapsed()))
                .collect(),
        })
    }

    /// The path and the query, redacted as configured.
    fn shown_target(&self, uri: &Uri) -> (String, Option<String>) {
        let path = truncated_text(uri.path().as_bytes(), MAX_TARGET_BYTES);
        let Some(query) = uri.query() else { return (path, None) };
        if !self.http_policy.access_log.should_redact_query {
            return (path, Some(truncated_text(query.as_bytes(), MAX_TARGET_BYTES)));
        }
        let mut hidden = Vec::new();
        redact::redact_query(&mut hidden, format!("?{query}").as_bytes());
        (path, Some(truncated_text(&hidden[1..], MAX_TARGET_BYTES)))
    }
}

fn attempt_span(attempt: &AttemptRecord, elapsed: Duration) -> AttemptSpan {
    let AttemptSpanRecord { span, ordinal, started_after, ended_after, scheme } =
        attempt.span_record;
    AttemptSpan {
        endpoint: attempt.endpoint,
        place: attempt.place.clone(),
        span_id: span,
        prior_attempts: ordinal,
        started: started_after,
        ended: ended_after.unwrap_or(elapsed).max(started_after),
        scheme,
        status: attempt.result.status(),
        outcome: attempt.result.reason_word(),
    }
}

/// A URL without its scheme.
fn url_without_scheme(host: &str, path: &str, query: Option<&str>) -> String {
    match query {
        None => format!("{host}{path}"),
        Some(query) => format!("{host}{path}?{query}"),
    }
}

/// The combined `tracestate`, if it is not too long.
fn tracestate(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all("tracestate").iter();
    let values: Vec<&str> = values.map(|value| value.to_str().ok()).collect::<Option<_>>()?;
    Some(values.join(",")).filter(|state| state.len() <= MAX_TRACESTATE_BYTES)
}

/// Bytes as text, truncated to `max_bytes`.
fn truncated_text(bytes: &[u8], max_bytes: usize) -> String {
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(max_bytes)]).into_owned();
    if bytes.len() > max_bytes {
        text.push('…');
    }
    text
}

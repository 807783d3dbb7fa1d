//! Turns a trace into spans, with the names of OpenTelemetry's semantic conventions for HTTP (1.38,
//! stable).

use std::time::Duration;

use http::{Method, Version};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::request_trace::{AttemptSpan, RequestTrace};

/// Sampled (W3C), and the parent's remoteness is known (OTLP `SpanFlags`).
const SPAN_FLAGS: u32 = 0x101;

/// The parent span is in another process.
const REMOTE_PARENT_FLAG: u32 = 0x200;

/// Attempts with these outcomes are not failures: abandoned ones, and those that the client ended.
const NON_FAILURE_OUTCOMES: [&str; 2] = ["left", "client"];

/// The methods in the conventions; others become `_OTHER`.
const KNOWN_METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::CONNECT,
    Method::TRACE,
];

/// The request's span, then those of its attempts.
pub fn trace_spans(trace: &RequestTrace) -> Vec<Span> {
    let attempts = trace.attempt_spans.iter().map(|attempt| client_span(trace, attempt));
    std::iter::once(server_span(trace)).chain(attempts).collect()
}

fn server_span(trace: &RequestTrace) -> Span {
    let mut attributes = SpanAttributes::default();
    let method = attributes.push_method(&trace.method);
    attributes.push_text("url.path", &trace.path);
    attributes.push_optional("url.query", trace.query.as_deref());
    attributes.push_text("url.scheme", trace.scheme);
    if !trace.host.is_empty() {
        let (host, port) = host_and_port(&trace.host);
        attributes.push_text("server.address", host);
        attributes.push_number("server.port", port);
    }
    attributes.push_number("http.response.status_code", trace.status);
    attributes.push_optional("http.route", trace.route.as_deref());
    attributes.push_text("network.protocol.version", version_text(trace.version));
    attributes.push_text("client.address", &trace.client_ip.to_string());
    if trace.peer_ip != trace.client_ip {
        attributes.push_text("network.peer.address", &trace.peer_ip.to_string());
    }
    attributes.push_optional("user_agent.original", trace.user_agent.as_deref());
    attributes.push_optional("gapless.reason", trace.reason);
    attributes.push_number("gapless.attempts", Some(trace.attempts));
    attributes.push_optional("gapless.pool", trace.pool.as_deref());
    // The attempt that was answered, or else the last one.
    let answered = trace.attempt_spans.iter().rfind(|attempt| attempt.status.is_some());
    let zone =
        answered.or_else(|| trace.attempt_spans.last()).map(|attempt| attempt.place.to_string());
    attributes.push_optional("gapless.zone", zone.as_deref());
    if !trace.request_id.is_empty() {
        attributes.push_text("gapless.request_id", &trace.request_id);
    }
    let failed = trace.status.is_some_and(|status| status >= 500) || trace.is_truncated;
    let status = trace.status.map(|status| status.to_string());
    let error = failed.then(|| trace.reason.or(status.as_deref())).flatten();
    attributes.push_optional("error.type", error);
    let name = match &trace.route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    };
    Span {
        span_id: hex_to_bytes(&trace.trace.1),
        parent_span_id: trace
            .parent
            .as_ref()
            .map(|parent| hex_to_bytes(parent))
            .unwrap_or_default(),
        flags: if trace.parent.is_some() { SPAN_FLAGS | REMOTE_PARENT_FLAG } else { SPAN_FLAGS },
        name,
        kind: SpanKind::Server.into(),
        end_time_unix_nano: unix_nanos(trace.started + trace.elapsed),
        attributes: attributes.0,
        status: status_of(failed),
        ..base_span(trace, Duration::ZERO)
    }
}

fn client_span(trace: &RequestTrace, attempt: &AttemptSpan) -> Span {
    let mut attributes = SpanAttributes::default();
    let method = attributes.push_method(&trace.method);
    attributes.push_text("url.full", &format!("{}://{}", attempt.scheme, trace.url));
    attributes.push_text("server.address", &attempt.endpoint.ip().to_string());
    attributes.push_number("server.port", Some(attempt.endpoint.port()));
    attributes.push_number("http.response.status_code", attempt.status);
    attributes
        .push_number("http.request.resend_count", Some(attempt.prior_attempts).filter(|&n| n > 0));
    attributes.push_text("gapless.zone", &attempt.place.to_string());
    attributes.push_optional("gapless.pool", trace.pool.as_deref());
    let status = attempt.status.map(|status| status.to_string());
    let outcome = attempt.outcome.or(status.as_deref());
    attributes.push_optional("gapless.outcome", outcome);
    let failed = match attempt.outcome {
        Some(word) => !NON_FAILURE_OUTCOMES.contains(&word),
        None => attempt.status.is_some_and(|status| status >= 400),
    };
    attributes.push_optional("error.type", outcome.filter(|_| failed));
    Span {
        span_id: hex_to_bytes(&attempt.span_id),
        parent_span_id: hex_to_bytes(&trace.trace.1),
        flags: SPAN_FLAGS,
        name: method.to_owned(),
        kind: SpanKind::Client.into(),
        end_time_unix_nano: unix_nanos(trace.started + attempt.ended),
        attributes: attributes.0,
        status: status_of(failed),
        ..base_span(trace, attempt.started)
    }
}

fn base_span(trace: &RequestTrace, began: Duration) -> Span {
    Span {
        trace_id: hex_to_bytes(&trace.trace.0),
        trace_state: trace.tracestate.clone(),
        start_time_unix_nano: unix_nanos(trace.started + began),
        ..Span::default()
    }
}

/// Success leaves the status unset, as the conventions demand.
fn status_of(failed: bool) -> Option<Status> {
    failed.then(|| Status { code: StatusCode::Error.into(), message: String::new() })
}

fn unix_nanos(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

/// Decodes hex digits; ids consist of nothing else.
fn hex_to_bytes(hex: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
    hex.as_chunks::<2>().0.iter().map(|&[high, low]| digit(high) << 4 | digit(low)).collect()
}

fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

fn host_and_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => {
            (name.trim_matches(['[', ']']), port.parse().ok())
        }
        _ => (host.trim_matches(['[', ']']), None),
    }
}

#[derive(Default)]
struct SpanAttributes(Vec<KeyValue>);

impl SpanAttributes {
    fn push(&mut self, key: &str, value: Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
    }

    fn push_text(&mut self, key: &str, value: &str) {
        self.push(key, Value::StringValue(value.to_owned()));
    }

    fn push_optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.push_text(key, value);
        }
    }

    fn push_number(&mut self, key: &str, value: Option<impl Into<i64>>) {
        if let Some(value) = value {
            self.push(key, Value::IntValue(value.into()));
        }
    }

    /// Adds the method. Returns the word that span names use for it.
    fn push_method<'a>(&mut self, method: &'a Method) -> &'a str {
        if KNOWN_METHODS.contains(method) {
            self.push_text("http.request.method", method.as_str());
            return method.as_str();
        }
        self.push_text("http.request.method", "_OTHER");
        self.push_text("http.request.method_original", method.as_str());
        "HTTP"
    }
}

/// The attributes of the service.
pub(super) fn resource_attributes(service: &str) -> Vec<KeyValue> {
    let mut attributes = SpanAttributes::default();
    attributes.push_text("service.name", service);
    attributes.push_text("service.version", env!("CARGO_PKG_VERSION"));
    attributes.0
}

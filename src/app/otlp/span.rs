//! A story as spans, in the names of OpenTelemetry's semantic conventions for HTTP (1.38, stable).

use std::time::Duration;

use http::{Method, Version};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::story::{Leg, Story};

/// Sampled (W3C); whether the parent is another process's is known.
const FLAGS: u32 = 0x101;

/// The parent is another process's.
const REMOTE: u32 = 0x200;

/// Outcomes of tries that are nobody's failure: given up on, or the client's doing.
const NO_FAILURE: [&str; 2] = ["left", "client"];

/// The methods that conventions know; others are shown apart.
const KNOWN: [Method; 9] = [
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

/// The request's span, then those of its tries.
#[must_use]
pub fn of(story: &Story) -> Vec<Span> {
    let legs = story.legs.iter().map(|leg| client(story, leg));
    std::iter::once(server(story)).chain(legs).collect()
}

fn server(story: &Story) -> Span {
    let mut attributes = Attributes::default();
    let method = attributes.method(&story.method);
    attributes.text("url.path", &story.path);
    attributes.optional("url.query", story.query.as_deref());
    attributes.text("url.scheme", story.scheme);
    if !story.host.is_empty() {
        let (host, port) = host_and_port(&story.host);
        attributes.text("server.address", host);
        attributes.number("server.port", port);
    }
    attributes.number("http.response.status_code", story.status);
    attributes.optional("http.route", story.route.as_deref());
    attributes.text("network.protocol.version", version(story.version));
    attributes.text("client.address", &story.client.to_string());
    if story.peer != story.client {
        attributes.text("network.peer.address", &story.peer.to_string());
    }
    attributes.optional("user_agent.original", story.user_agent.as_deref());
    attributes.optional("gapless.reason", story.reason);
    attributes.number("gapless.attempts", Some(story.attempts));
    attributes.optional("gapless.pool", story.pool.as_deref());
    // Of the try that answered; where none did, of the last one.
    let answered = story.legs.iter().rfind(|leg| leg.status.is_some());
    let zone = answered.or_else(|| story.legs.last()).map(|leg| leg.place.to_string());
    attributes.optional("gapless.zone", zone.as_deref());
    if !story.request_id.is_empty() {
        attributes.text("gapless.request_id", &story.request_id);
    }
    let failed = story.status.is_some_and(|status| status >= 500) || story.is_cut;
    let status = story.status.map(|status| status.to_string());
    let error = failed.then(|| story.reason.or(status.as_deref())).flatten();
    attributes.optional("error.type", error);
    let name = match &story.route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    };
    Span {
        span_id: bytes(&story.trace.1),
        parent_span_id: story.parent.as_ref().map(|parent| bytes(parent)).unwrap_or_default(),
        flags: if story.parent.is_some() { FLAGS | REMOTE } else { FLAGS },
        name,
        kind: SpanKind::Server.into(),
        end_time_unix_nano: nanos(story.began + story.elapsed),
        attributes: attributes.0,
        status: status_of(failed),
        ..common(story, Duration::ZERO)
    }
}

fn client(story: &Story, leg: &Leg) -> Span {
    let mut attributes = Attributes::default();
    let method = attributes.method(&story.method);
    attributes.text("url.full", &format!("{}://{}", leg.scheme, story.url));
    attributes.text("server.address", &leg.endpoint.ip().to_string());
    attributes.number("server.port", Some(leg.endpoint.port()));
    attributes.number("http.response.status_code", leg.status);
    attributes.number("http.request.resend_count", Some(leg.ordinal).filter(|&n| n > 0));
    attributes.text("gapless.zone", &leg.place.to_string());
    attributes.optional("gapless.pool", story.pool.as_deref());
    let status = leg.status.map(|status| status.to_string());
    let outcome = leg.outcome.or(status.as_deref());
    attributes.optional("gapless.outcome", outcome);
    let failed = match leg.outcome {
        Some(word) => !NO_FAILURE.contains(&word),
        None => leg.status.is_some_and(|status| status >= 400),
    };
    attributes.optional("error.type", outcome.filter(|_| failed));
    Span {
        span_id: bytes(&leg.span),
        parent_span_id: bytes(&story.trace.1),
        flags: FLAGS,
        name: method.to_owned(),
        kind: SpanKind::Client.into(),
        end_time_unix_nano: nanos(story.began + leg.over),
        attributes: attributes.0,
        status: status_of(failed),
        ..common(story, leg.began)
    }
}

fn common(story: &Story, began: Duration) -> Span {
    Span {
        trace_id: bytes(&story.trace.0),
        trace_state: story.state.clone(),
        start_time_unix_nano: nanos(story.began + began),
        ..Span::default()
    }
}

/// Nothing is said of what went well: that is for who asked to judge.
fn status_of(failed: bool) -> Option<Status> {
    failed.then(|| Status { code: StatusCode::Error.into(), message: String::new() })
}

fn nanos(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

/// What hex digits say; an id was made of nothing else.
fn bytes(hex: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
    hex.as_chunks::<2>().0.iter().map(|&[high, low]| digit(high) << 4 | digit(low)).collect()
}

fn version(version: Version) -> &'static str {
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
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn push(&mut self, key: &str, value: Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
    }

    fn text(&mut self, key: &str, value: &str) {
        self.push(key, Value::StringValue(value.to_owned()));
    }

    fn optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn number(&mut self, key: &str, value: Option<impl Into<i64>>) {
        if let Some(value) = value {
            self.push(key, Value::IntValue(value.into()));
        }
    }

    /// Adds the method, and says by which word it goes in names.
    fn method<'a>(&mut self, method: &'a Method) -> &'a str {
        if KNOWN.contains(method) {
            self.text("http.request.method", method.as_str());
            return method.as_str();
        }
        self.text("http.request.method", "_OTHER");
        self.text("http.request.method_original", method.as_str());
        "HTTP"
    }
}

/// Who the spans are of.
pub(super) fn resource(service: &str) -> Vec<KeyValue> {
    let mut attributes = Attributes::default();
    attributes.text("service.name", service);
    attributes.text("service.version", env!("CARGO_PKG_VERSION"));
    attributes.0
}

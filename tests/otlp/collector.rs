//! A collector of spans: a test endpoint that decodes its bodies.

use std::fmt::Write;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;

use crate::support::endpoint::{ReceivedRequest, ResponseMode, TestEndpoint};
use crate::support::{DEFAULT_TIMEOUT, poll_until};

/// The response of a collector that accepted everything.
pub(crate) const ACCEPTED_RESPONSE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A collector that accepts every post unless configured otherwise.
pub(crate) struct SpanCollector {
    pub(crate) endpoint: TestEndpoint,
}

impl SpanCollector {
    pub(crate) fn start() -> Self {
        let endpoint = TestEndpoint::start("collector");
        endpoint.set_mode(ResponseMode::Raw(ACCEPTED_RESPONSE.into()));
        Self { endpoint }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.endpoint.address())
    }

    pub(crate) fn posts(&self) -> Vec<ReceivedRequest> {
        self.endpoint.requests()
    }

    /// All received spans in order; a repeated batch appears twice.
    pub(crate) fn spans(&self) -> Vec<Span> {
        decode_spans(&self.posts())
    }

    /// Waits for the spans of the request for `path`: the request's own span first,
    /// then those of its attempts.
    #[track_caller]
    pub(crate) fn spans_of_request(&self, path: &str) -> (Span, Vec<Span>) {
        let server = poll_until(&format!("a span of {path}"), DEFAULT_TIMEOUT, || {
            let mut spans = self.spans().into_iter();
            spans.find(|span| {
                has_kind(span, SpanKind::Server) && attribute(span, "url.path") == path
            })
        });
        let is_child = |span: &Span| span.parent_span_id == server.span_id;
        let attempts = self.spans().into_iter().filter(is_child).collect();
        (server, attempts)
    }
}

pub(crate) fn decode_spans(posts: &[ReceivedRequest]) -> Vec<Span> {
    let all = posts.iter().flat_map(|post| decode_resources(&post.body));
    all.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
}

pub(crate) fn decode_resources(body: &[u8]) -> Vec<ResourceSpans> {
    ExportTraceServiceRequest::decode(body).expect("an export request").resource_spans
}

pub(crate) fn has_kind(span: &Span, kind: SpanKind) -> bool {
    span.kind() == kind
}

pub(crate) fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

/// An attribute as text; empty if absent.
pub(crate) fn attribute(span: &Span, key: &str) -> String {
    attribute_value(&span.attributes, key)
}

pub(crate) fn attribute_value(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|found| found.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => other.map(|value| format!("{value:?}")).unwrap_or_default(),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text");
        text
    })
}

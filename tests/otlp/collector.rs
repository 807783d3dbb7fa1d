//! A collector of spans: an endpoint of the tests whose bodies are decoded.

use std::fmt::Write;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;

use crate::support::endpoint::{Endpoint, Mode, Seen};
use crate::support::{SOON, until};

/// What a collector answers that has taken everything.
pub(crate) const TAKEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Takes every post, unless told otherwise.
pub(crate) struct Collector {
    pub(crate) endpoint: Endpoint,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let endpoint = Endpoint::start("collector");
        endpoint.set(Mode::Raw(TAKEN.into()));
        Self { endpoint }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.endpoint.address())
    }

    pub(crate) fn posts(&self) -> Vec<Seen> {
        self.endpoint.seen()
    }

    /// Every span that came, in its order; a batch that came twice is there twice.
    pub(crate) fn spans(&self) -> Vec<Span> {
        spans(&self.posts())
    }

    /// All spans of the request for `path`, when the first of them are there: its own comes first, and
    /// those of its tries come with it.
    #[track_caller]
    pub(crate) fn request(&self, path: &str) -> (Span, Vec<Span>) {
        let server = until(&format!("a span of {path}"), SOON, || {
            let mut spans = self.spans().into_iter();
            spans.find(|span| is(span, SpanKind::Server) && text(span, "url.path") == path)
        });
        let below = |span: &Span| span.parent_span_id == server.span_id;
        let tries = self.spans().into_iter().filter(below).collect();
        (server, tries)
    }
}

pub(crate) fn spans(posts: &[Seen]) -> Vec<Span> {
    let all = posts.iter().flat_map(|post| resources(&post.body));
    all.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
}

pub(crate) fn resources(body: &[u8]) -> Vec<ResourceSpans> {
    ExportTraceServiceRequest::decode(body).expect("an export request").resource_spans
}

pub(crate) fn is(span: &Span, kind: SpanKind) -> bool {
    span.kind() == kind
}

pub(crate) fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

/// An attribute as text; empty where there is none.
pub(crate) fn text(span: &Span, key: &str) -> String {
    value(&span.attributes, key)
}

pub(crate) fn value(attributes: &[KeyValue], key: &str) -> String {
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

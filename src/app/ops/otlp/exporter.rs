//! The exporter thread: only this thread waits for the collector.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::model::OtlpConfig;
use crate::net::post_client::{PostClient, PostError, PostResponse};

use super::request_trace::RequestTrace;
use super::{SpanDropReason, TraceQueue, span};

/// Time to collect spans, so that one request serves many.
const BATCH_DELAY: Duration = Duration::from_secs(1);

/// Interval of checks whether a batch is full before that.
const BATCH_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Backoff before a retry: initial and maximum.
const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A batch that the collector has not accepted for so long is dropped.
const BATCH_TIMEOUT: Duration = Duration::from_mins(1);

const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Limit of characters of a collector's message in the log.
const MAX_LOGGED_MESSAGE_CHARS: usize = 200;

/// The schema of the attributes.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.38.0";

/// Exports until the shutdown deadline.
pub(super) fn run_exporter(exports: &TraceQueue, traces: mpsc::UnboundedReceiver<RequestTrace>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let end = exports.deadline.subscribe();
            let rng = Rng::new();
            let exporter = SpanExporter {
                exports,
                traces,
                deadline: end,
                rng,
                client: None,
                last_warning: None,
            };
            runtime.block_on(exporter.run());
            // A DNS lookup may still be running.
            runtime.shutdown_background();
        }
        Err(error) => tracing::error!(%error, "spans cannot be exported: no runtime"),
    }
}

struct SpanExporter<'a> {
    exports: &'a TraceQueue,
    traces: mpsc::UnboundedReceiver<RequestTrace>,
    deadline: watch::Receiver<Option<Instant>>,
    rng: Rng,
    client: Option<(Arc<OtlpConfig>, PostClient)>,
    last_warning: Option<Instant>,
}

/// The meaning of a response (OTLP 1.7, "OTLP/HTTP Response").
#[derive(Debug, PartialEq, Eq)]
enum ExportResult {
    /// All spans except the `rejected` ones are accepted.
    Accepted { rejected: u64, message: String },
    /// Retry, after this time if the collector gives one.
    Retry(Option<Duration>),
    /// The collector refuses the batch.
    Rejected,
}

impl SpanExporter<'_> {
    async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let has_ended = self.deadline.borrow().is_some();
            if !has_ended {
                self.collect_batch(&mut batch).await;
            }
            while let Some(target) = self.exports.target()
                && self.drain_queue(&mut batch, target.batch_spans)
            {
                self.export_batch(target, std::mem::take(&mut batch)).await;
                // A retry must not delay the rest until a batch is full.
                if !has_ended {
                    break;
                }
            }
            if has_ended {
                return;
            }
        }
    }

    /// Waits for spans, then for more of them until the batch is full or its delay has passed.
    async fn collect_batch(&mut self, batch: &mut Vec<Span>) {
        let first_trace = tokio::select! {
            trace = self.traces.recv() => trace,
            _ = self.deadline.wait_for(Option::is_some) => return,
        };
        let Some(trace) = first_trace else { return };
        self.push_spans(batch, &trace);
        let until = Instant::now() + BATCH_DELAY;
        let max_spans = self.exports.target().map_or(1, |target| target.batch_spans);
        while !self.drain_queue(batch, max_spans) || batch.len() < max_spans {
            let now = Instant::now();
            if now >= until {
                return;
            }
            tokio::select! {
                () = sleep(BATCH_POLL_INTERVAL) => {}
                _ = self.deadline.wait_for(Option::is_some) => return,
            }
        }
    }

    /// Takes about `max_spans` spans from the queue. Returns whether the batch has any.
    fn drain_queue(&mut self, batch: &mut Vec<Span>, max_spans: usize) -> bool {
        while batch.len() < max_spans
            && let Ok(trace) = self.traces.try_recv()
        {
            self.push_spans(batch, &trace);
        }
        !batch.is_empty()
    }

    fn push_spans(&self, batch: &mut Vec<Span>, trace: &RequestTrace) {
        self.exports.queued.fetch_sub(1, Relaxed);
        batch.extend(span::trace_spans(trace));
    }

    /// Posts until the collector accepts or rejects the spans, or time is up.
    async fn export_batch(&mut self, mut target: Arc<OtlpConfig>, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let body = Bytes::from(build_request(&target, spans).encode_to_vec());
        let (began, mut backoff) = (Instant::now(), INITIAL_BACKOFF);
        loop {
            let retry_after = match self.post_batch(&target, body.clone()).await {
                Some(Ok(response)) => match classify_response(&response) {
                    ExportResult::Accepted { rejected, message } => {
                        return self.record_accepted(count, rejected.min(count), &message);
                    }
                    ExportResult::Rejected => {
                        let status = response.status;
                        self.warn_rate_limited(
                            &target,
                            &format!("the collector refuses spans: {status}"),
                        );
                        return self.exports.count_dropped(SpanDropReason::Rejected, count);
                    }
                    ExportResult::Retry(after) => {
                        let status = response.status;
                        self.warn_rate_limited(
                            &target,
                            &format!("the collector is not ready: {status}"),
                        );
                        after
                    }
                },
                Some(Err(error)) => {
                    self.warn_rate_limited(&target, &format!("spans cannot be exported: {error}"));
                    None
                }
                None => {
                    self.warn_rate_limited(
                        &target,
                        "spans cannot be exported: no response in time",
                    );
                    None
                }
            };
            let pause = retry_after.unwrap_or_else(|| backoff.mul_f64(0.5 + self.rng.f64() / 2.0));
            backoff = (backoff * 2).min(MAX_BACKOFF);
            let pause = pause.min(MAX_BACKOFF);
            if began.elapsed() + pause > BATCH_TIMEOUT || self.deadline.borrow().is_some() {
                return self.exports.count_dropped(SpanDropReason::Unreachable, count);
            }
            tokio::select! {
                () = sleep(pause) => {}
                // A last attempt at once.
                _ = self.deadline.wait_for(Option::is_some) => {}
            }
            // The next request goes to the target of the newest configuration.
            target = self.exports.target().unwrap_or(target);
        }
    }

    /// Sends one request; `None` on timeout.
    async fn post_batch(
        &mut self,
        target: &Arc<OtlpConfig>,
        body: Bytes,
    ) -> Option<Result<PostResponse, PostError>> {
        if self.client.as_ref().is_none_or(|(current, _)| !Arc::ptr_eq(current, target)) {
            let client = PostClient::new(
                target.endpoint.clone(),
                request_headers(target),
                target.tls.clone(),
            );
            self.client = Some((Arc::clone(target), client));
        }
        let (_, client) = self.client.as_mut()?;
        let mut end = self.deadline.clone();
        let deadline_passed = async {
            let until = end.wait_for(Option::is_some).await.ok().and_then(|until| *until);
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            response = timeout(target.timeout, client.post(body)) => response.ok(),
            () = deadline_passed => None,
        }
    }

    fn record_accepted(&mut self, count: u64, rejected: u64, message: &str) {
        self.exports.exported.fetch_add(count - rejected, Relaxed);
        if rejected > 0 {
            self.exports.count_dropped(SpanDropReason::Rejected, rejected);
        }
        if rejected > 0 || !message.is_empty() {
            let message: String = message.chars().take(MAX_LOGGED_MESSAGE_CHARS).collect();
            self.log_rate_limited(|| tracing::warn!(rejected, message, "message of the collector"));
        }
    }

    fn warn_rate_limited(&mut self, target: &OtlpConfig, message: &str) {
        self.log_rate_limited(|| tracing::warn!(endpoint = %target.endpoint, "{message}"));
    }

    /// Logs unless a message was logged a moment ago.
    fn log_rate_limited(&mut self, log: impl FnOnce()) {
        let now = Instant::now();
        if self.last_warning.is_none_or(|last| now - last >= WARNING_INTERVAL) {
            self.last_warning = Some(now);
            log();
        }
    }
}

fn request_headers(target: &OtlpConfig) -> HeaderMap {
    let mut headers = target.headers.clone();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    let agent = HeaderValue::from_static(concat!("gapless/", env!("CARGO_PKG_VERSION")));
    headers.entry(USER_AGENT).or_insert(agent);
    headers
}

fn build_request(target: &OtlpConfig, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let attributes = span::resource_attributes(&target.service);
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans,
                schema_url: SCHEMA_URL.to_owned(),
            }],
            schema_url: SCHEMA_URL.to_owned(),
        }],
    }
}

fn classify_response(answer: &PostResponse) -> ExportResult {
    match answer.status.as_u16() {
        200..=299 => {
            // An unreadable body does not mean rejection.
            let response = ExportTraceServiceResponse::decode(answer.body.clone());
            let partial = response.ok().and_then(|response| response.partial_success);
            let (rejected, message) = partial
                .map(|partial| (partial.rejected_spans, partial.error_message))
                .unwrap_or_default();
            ExportResult::Accepted { rejected: u64::try_from(rejected).unwrap_or(0), message }
        }
        429 | 502 | 503 | 504 => ExportResult::Retry(answer.retry_after),
        _ => ExportResult::Rejected,
    }
}

//! The thread that posts spans. It alone may be held up by a collector.

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

use crate::config::model::Otlp;
use crate::net::post::{Answer, PostError, Poster};

use super::story::Story;
use super::{Exports, Why, span};

/// Spans are gathered for this long, so that one post serves many.
const GATHER: Duration = Duration::from_secs(1);

/// Between two looks whether a batch is full before that.
const GATHER_LOOK: Duration = Duration::from_millis(50);

/// The wait before a batch is sent again: the first one, and the longest.
const WAIT: Duration = Duration::from_secs(1);
const WAIT_AT_MOST: Duration = Duration::from_secs(30);

/// A batch that the collector has not taken for so long is given up.
const GIVE_UP: Duration = Duration::from_mins(1);

/// Between two complaints.
const COMPLAINTS_APART: Duration = Duration::from_secs(10);

/// What of a collector's words is logged.
const WORDS: usize = 200;

/// How the schema of the attributes is called.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.38.0";

/// Exports until a stop has had its time.
pub(super) fn run(exports: &Exports, stories: mpsc::UnboundedReceiver<Story>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let end = exports.end.subscribe();
            let rng = Rng::new();
            let exporter = Exporter { exports, stories, end, rng, poster: None, complained: None };
            runtime.block_on(exporter.run());
            // A look-up of a name may still be under way.
            runtime.shutdown_background();
        }
        Err(error) => tracing::error!(%error, "spans cannot be exported: no runtime"),
    }
}

struct Exporter<'a> {
    exports: &'a Exports,
    stories: mpsc::UnboundedReceiver<Story>,
    end: watch::Receiver<Option<Instant>>,
    rng: Rng,
    poster: Option<(Arc<Otlp>, Poster)>,
    complained: Option<Instant>,
}

/// What an answer means (OTLP 1.7, "OTLP/HTTP Response").
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// All but so many spans are taken.
    Taken { rejected: u64, words: String },
    /// Come again, after this time if it says so.
    Again(Option<Duration>),
    /// It does not want them.
    Refused,
}

impl Exporter<'_> {
    async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let has_ended = self.end.borrow().is_some();
            if !has_ended {
                self.gather(&mut batch).await;
            }
            while let Some(target) = self.exports.target()
                && self.take(&mut batch, target.batch)
            {
                self.export(target, std::mem::take(&mut batch)).await;
                // Whoever is slow must not have the rest wait for a full batch.
                if !has_ended {
                    break;
                }
            }
            if has_ended {
                return;
            }
        }
    }

    /// Waits for spans, and then a little for more of them.
    async fn gather(&mut self, batch: &mut Vec<Span>) {
        let first = tokio::select! {
            story = self.stories.recv() => story,
            _ = self.end.wait_for(Option::is_some) => return,
        };
        let Some(first) = first else { return };
        self.put(batch, &first);
        let until = Instant::now() + GATHER;
        let at_most = self.exports.target().map_or(1, |target| target.batch);
        while !self.take(batch, at_most) || batch.len() < at_most {
            let now = Instant::now();
            if now >= until {
                return;
            }
            tokio::select! {
                () = sleep(GATHER_LOOK) => {}
                _ = self.end.wait_for(Option::is_some) => return,
            }
        }
    }

    /// Takes what is there, up to `at_most` spans, about; whether there are any.
    fn take(&mut self, batch: &mut Vec<Span>, at_most: usize) -> bool {
        while batch.len() < at_most
            && let Ok(story) = self.stories.try_recv()
        {
            self.put(batch, &story);
        }
        !batch.is_empty()
    }

    fn put(&self, batch: &mut Vec<Span>, story: &Story) {
        self.exports.queued.fetch_sub(1, Relaxed);
        batch.extend(span::of(story));
    }

    /// Posts until the collector has them, does not want them, or time is up.
    async fn export(&mut self, mut target: Arc<Otlp>, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let body = Bytes::from(request(&target, spans).encode_to_vec());
        let (began, mut wait) = (Instant::now(), WAIT);
        loop {
            let again = match self.post(&target, body.clone()).await {
                Some(Ok(answer)) => match judge(&answer) {
                    Verdict::Taken { rejected, words } => {
                        return self.taken(count, rejected.min(count), &words);
                    }
                    Verdict::Refused => {
                        let status = answer.status;
                        self.complain(&target, &format!("the collector refuses spans: {status}"));
                        return self.exports.drop_for(Why::Rejected, count);
                    }
                    Verdict::Again(after) => {
                        let status = answer.status;
                        self.complain(&target, &format!("the collector is not ready: {status}"));
                        after
                    }
                },
                Some(Err(error)) => {
                    self.complain(&target, &format!("spans cannot be exported: {error}"));
                    None
                }
                None => {
                    self.complain(&target, "spans cannot be exported: no answer in time");
                    None
                }
            };
            let pause = again.unwrap_or_else(|| wait.mul_f64(0.5 + self.rng.f64() / 2.0));
            wait = (wait * 2).min(WAIT_AT_MOST);
            let pause = pause.min(WAIT_AT_MOST);
            if began.elapsed() + pause > GIVE_UP || self.end.borrow().is_some() {
                return self.exports.drop_for(Why::Unreached, count);
            }
            tokio::select! {
                () = sleep(pause) => {}
                // Once more at once, and then no more.
                _ = self.end.wait_for(Option::is_some) => {}
            }
            // The next post goes where a reload has said meanwhile.
            target = self.exports.target().unwrap_or(target);
        }
    }

    /// One post; `None` if it takes too long.
    async fn post(&mut self, target: &Arc<Otlp>, body: Bytes) -> Option<Result<Answer, PostError>> {
        if self.poster.as_ref().is_none_or(|(known, _)| !Arc::ptr_eq(known, target)) {
            let poster = Poster::new(target.endpoint.clone(), headers(target), target.tls.clone());
            self.poster = Some((Arc::clone(target), poster));
        }
        let (_, poster) = self.poster.as_mut()?;
        let mut end = self.end.clone();
        let over = async {
            let until = end.wait_for(Option::is_some).await.ok().and_then(|until| *until);
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = timeout(target.timeout, poster.post(body)) => answer.ok(),
            () = over => None,
        }
    }

    fn taken(&mut self, count: u64, rejected: u64, words: &str) {
        self.exports.exported.fetch_add(count - rejected, Relaxed);
        if rejected > 0 {
            self.exports.drop_for(Why::Rejected, rejected);
        }
        if rejected > 0 || !words.is_empty() {
            let words: String = words.chars().take(WORDS).collect();
            self.say(|| tracing::warn!(rejected, words, "the collector says"));
        }
    }

    fn complain(&mut self, target: &Otlp, what: &str) {
        self.say(|| tracing::warn!(endpoint = %target.endpoint, "{what}"));
    }

    /// Says something, unless something was said a moment ago.
    fn say(&mut self, say: impl FnOnce()) {
        let now = Instant::now();
        if self.complained.is_none_or(|said| now - said >= COMPLAINTS_APART) {
            self.complained = Some(now);
            say();
        }
    }
}

fn headers(target: &Otlp) -> HeaderMap {
    let mut headers = target.headers.clone();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    let agent = HeaderValue::from_static(concat!("gapless/", env!("CARGO_PKG_VERSION")));
    headers.entry(USER_AGENT).or_insert(agent);
    headers
}

fn request(target: &Otlp, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let attributes = span::resource(&target.service);
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans,
                schema_url: SCHEMA.to_owned(),
            }],
            schema_url: SCHEMA.to_owned(),
        }],
    }
}

fn judge(answer: &Answer) -> Verdict {
    match answer.status.as_u16() {
        200..=299 => {
            // What cannot be read says nothing against the spans.
            let response = ExportTraceServiceResponse::decode(answer.body.clone());
            let partial = response.ok().and_then(|response| response.partial_success);
            let (rejected, words) = partial
                .map(|partial| (partial.rejected_spans, partial.error_message))
                .unwrap_or_default();
            Verdict::Taken { rejected: u64::try_from(rejected).unwrap_or(0), words }
        }
        429 | 502 | 503 | 504 => Verdict::Again(answer.retry_after),
        _ => Verdict::Refused,
    }
}

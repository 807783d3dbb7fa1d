//! Mirrored requests: copies for another pool, whose responses are discarded.
//!
//! A copy starts when the client's request has its response, so it never delays it. Its outcome is
//! evidence for its own pool only.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use http::Response;
use tokio::time::timeout;

use crate::app::dataplane::access::RecordedRequest;
use crate::app::dataplane::worker::{Worker, WorkerView};
use crate::logic::model::outcome::Failure;
use crate::logic::request::retry::RequestExposure;
use crate::logic::routing::{CompiledRoute, PoolRoute};
use crate::net::upstream::{BodyFraming, RequestBody, ResponseBodyError};

use super::body::ProxyBody;
use super::client::Client;
use super::downstream::Downstream;
use super::forward_request::forward_request;
use super::mirror_limiter::MirrorPermit;
use super::request_context::RequestContext;
use super::request_rewrite;
use super::retry_loop::PriorAttempts;
use super::validation::ValidatedRequest;

/// A copy that takes longer is withdrawn.
const MIRROR_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of a response that are read to keep its connection reusable.
const MAX_READ_BYTES: usize = 1024 * 1024;

/// The mirror route, if this request is among the mirrored share.
pub(super) fn select_route<'r>(worker: &Worker, rule: &'r CompiledRoute) -> Option<&'r PoolRoute> {
    let (route, percent) = rule.mirror.as_ref()?;
    worker.with_rng(|rng| rng.u32(..100) < *percent).then_some(route)
}

/// Sends a copy if the whole body is buffered and the limits allow it; otherwise counts a drop.
pub(super) fn send_copy(context: &RequestContext<'_>, route: &PoolRoute, outgoing: &RequestBody) {
    let RequestContext { worker, view, downstream, request, validated } = *context;
    let meter = &view.pool(route).1.meter;
    let body = outgoing.try_clone();
    let permit = body
        .as_ref()
        .and_then(|body| MirrorPermit::take(&worker.mirror_limiter, body.buffered_bytes()));
    let Some((body, permit)) = body.zip(permit) else { return meter.record_mirror(false) };
    meter.record_mirror(true);
    let latest_view = worker.view();
    let mirror_request = MirrorRequest {
        view: if latest_view.has_pool(route) { latest_view } else { Rc::clone(view) },
        worker: Rc::clone(worker),
        route: route.clone(),
        client: Rc::clone(downstream.client),
        recorded: RecordedRequest { request: request_rewrite::clone_head(request), record: None },
        host: validated.host.to_owned(),
        client_host: validated.client_host.to_owned(),
        framing: validated.framing,
        content_length: validated.content_length,
        _permit: permit,
    };
    tokio::task::spawn_local(timeout(MIRROR_TIMEOUT, mirror_request.run(body)));
}

/// A copy with everything it needs, since it may outlive the request.
struct MirrorRequest {
    worker: Rc<Worker>,
    view: Rc<WorkerView>,
    route: PoolRoute,
    client: Rc<Client>,
    recorded: RecordedRequest,
    host: String,
    client_host: String,
    framing: Option<BodyFraming>,
    content_length: Option<u64>,
    _permit: MirrorPermit,
}

impl MirrorRequest {
    async fn run(self, mut body: RequestBody) {
        let validated = ValidatedRequest {
            host: &self.host,
            client_host: &self.client_host,
            framing: self.framing,
            content_length: self.content_length,
        };
        let (policy, ids) = (&self.view.http_policy, &self.worker.id_generator);
        let context = RequestContext {
            worker: &self.worker,
            view: &self.view,
            downstream: &Downstream::new(policy, ids, &self.client, &self.recorded),
            request: &self.recorded.request,
            validated: &validated,
        };
        // A failure has been recorded at the endpoints; there is no client to answer.
        if let Ok(response) =
            forward_request(&context, &self.route, &mut body, PriorAttempts::for_mirror()).await
        {
            drain_response(response).await;
        }
    }
}

/// Reads a response to its end, within limits.
async fn drain_response(response: Response<ProxyBody>) {
    let ProxyBody::Stream { mut source, guard } = response.into_body() else { return };
    let mut read = 0;
    while read <= MAX_READ_BYTES {
        match poll_fn(|cx| source.poll_chunk(cx)).await {
            Some(Ok(piece)) => read += piece.len(),
            Some(Err(ResponseBodyError::Endpoint(reason))) => {
                return guard.record_failure(Failure::http(reason), RequestExposure::MaybeSent);
            }
            Some(Err(ResponseBodyError::Client | ResponseBodyError::Drained)) => return,
            None => return guard.on_complete(),
        }
    }
}

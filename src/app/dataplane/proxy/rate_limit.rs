//! Rate limits of routes.

use std::rc::Rc;
use std::time::Instant;

use http::Response;
use http::header::{HeaderValue, RETRY_AFTER};

use crate::app::dataplane::worker::{Worker, WorkerView};
use crate::logic::request::rate_limit::retry_after_seconds;
use crate::logic::routing::PoolRoute;

use super::body::ProxyBody;
use super::downstream::Downstream;
use super::local_reply_reason::LocalReplyReason;

/// The refusal, if the route's rate limit is exceeded.
pub(super) fn check_rate(
    worker: &Rc<Worker>,
    view: &WorkerView,
    route: &PoolRoute,
    downstream: &Downstream<'_>,
) -> Option<Response<ProxyBody>> {
    let spec = route.spec.rate_limit.as_ref()?;
    let now_us = worker.shared.micros(Instant::now());
    let rates = worker.shared.rate_table.get()?;
    let retry_after =
        rates.try_acquire(spec, &route.spec.name, downstream.origin.ip, now_us).err()?;
    view.pool(route).1.meter.record_error(LocalReplyReason::RateLimited);
    worker.record_rate_limited(&route.spec.name);
    let mut response = LocalReplyReason::RateLimited.response();
    let seconds = HeaderValue::from(retry_after_seconds(retry_after));
    response.headers_mut().insert(RETRY_AFTER, seconds);
    Some(response)
}

//! Who asks for too much.

use std::rc::Rc;
use std::time::Instant;

use http::Response;
use http::header::{HeaderValue, RETRY_AFTER};

use crate::app::worker::{View, Worker};
use crate::logic::rate::retry_after_seconds;
use crate::logic::route::Route;

use super::asker::Asker;
use super::body::ProxyBody;
use super::fault::Reason;

/// The refusal, if the route's rate is used up.
pub(super) fn refuse(
    worker: &Rc<Worker>,
    view: &View,
    route: &Route,
    asker: &Asker<'_>,
) -> Option<Response<ProxyBody>> {
    let spec = route.spec.rate.as_ref()?;
    let now_us = worker.shared.micros(Instant::now());
    let rates = worker.shared.rates.get()?;
    let wait = rates.take(spec, &route.spec.name, asker.origin.ip, now_us).err()?;
    view.pool(route).1.meter.refused(Reason::RateLimited);
    worker.limited(&route.spec.name);
    let mut response = Reason::RateLimited.response();
    let seconds = HeaderValue::from(retry_after_seconds(wait));
    response.headers_mut().insert(RETRY_AFTER, seconds);
    Some(response)
}

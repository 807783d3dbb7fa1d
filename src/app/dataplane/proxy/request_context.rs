//! The references that all steps from request to response share.

use std::rc::Rc;

use http::Request;

use crate::app::dataplane::worker::{Worker, WorkerView};

use super::downstream::Downstream;
use super::validation::ValidatedRequest;

/// A routed request and the worker that serves it.
#[derive(Clone, Copy)]
pub(super) struct RequestContext<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) view: &'a Rc<WorkerView>,
    pub(super) downstream: &'a Downstream<'a>,
    pub(super) request: &'a Request<()>,
    pub(super) validated: &'a ValidatedRequest<'a>,
}

//! What every step of a request's way to its response needs.

use std::rc::Rc;

use http::Request;

use crate::app::dataplane::worker::{Worker, WorkerView};

use super::downstream::Downstream;
use super::validation::ValidatedRequest;

/// A request that is on its way to an answer, and who sees to it.
#[derive(Clone, Copy)]
pub(super) struct RequestContext<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) view: &'a Rc<WorkerView>,
    pub(super) downstream: &'a Downstream<'a>,
    pub(super) request: &'a Request<()>,
    pub(super) validated: &'a ValidatedRequest<'a>,
}

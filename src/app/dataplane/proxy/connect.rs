//! Opens the connection of an attempt, within its limits and its timeout.

use std::rc::Rc;

use tokio::time::sleep;

use crate::app::dataplane::worker::Worker;
use crate::logic::model::outcome::Failure;
use crate::logic::request::request_plan::ConnectTimeout;
use crate::logic::request::retry::RequestExposure;
use crate::net::upstream::{
    AbortEpoch, Checkout, ConnectProgress, ConnectionPool, DownstreamAddresses, ReadyConnection,
};

use super::attempt_error::AttemptError;
use super::endpoint_selector::ConnectionSource;

/// The source of an attempt's connection, and the limit on opening it.
pub(super) struct ConnectPlan {
    pub(super) source: ConnectionSource,
    pub(super) connect_timeout: ConnectTimeout,
}

#[derive(Clone, Copy)]
pub(super) struct ConnectContext<'a> {
    pub(super) worker: &'a Worker,
    pub(super) connections: &'a Rc<ConnectionPool>,
    pub(super) caller: DownstreamAddresses,
    pub(super) abort_epoch: AbortEpoch,
}

/// Opens a connection; warns if this process is out of resources.
pub(super) async fn open_connection(
    context: ConnectContext<'_>,
    plan: ConnectPlan,
) -> Result<ReadyConnection, AttemptError> {
    let opened = wait_and_connect(context, plan).await;
    if matches!(opened, Err(AttemptError::LocalResources)) {
        context
            .worker
            .warn_rate_limited("no connection can be opened: out of descriptors, ports or memory");
    }
    opened
}

/// Opens a connection, after a wait for a free one or for a descriptor where needed. The wait and
/// the opening each take the connect timeout at most.
async fn wait_and_connect(
    context: ConnectContext<'_>,
    plan: ConnectPlan,
) -> Result<ReadyConnection, AttemptError> {
    let ConnectContext { worker, connections, caller, abort_epoch } = context;
    let ConnectPlan { source, connect_timeout: connect } = plan;
    let aborted = || AttemptError::Aborted { reached: RequestExposure::NotSent };
    let free = match source {
        ConnectionSource::Immediate(free) => free,
        ConnectionSource::Queued { pending, full } => tokio::select! {
            biased;
            free = connections.wait_for_connection() => {
                drop(pending);
                free
            }
            () = connections.wait_for_abort(abort_epoch, true) => return Err(aborted()),
            () = sleep(connect.timeout) => return Err(AttemptError::LimitReached(full)),
        },
    };
    connections.prepare().await?;
    if matches!(free, Checkout::New(_)) && !worker.shared.descriptors.has_capacity() {
        tokio::select! {
            () = worker.free_descriptor(connect.timeout) => {}
            () = connections.wait_for_abort(abort_epoch, true) => return Err(aborted()),
        }
    }
    let connect_stage = ConnectProgress::default();
    tokio::select! {
        biased;
        opened = connections.acquire(free, caller, &connect_stage, connect.timeout) => Ok(opened?),
        () = connections.wait_for_abort(abort_epoch, true) => Err(aborted()),
        () = sleep(connect.timeout) => {
            let failure = Failure { reason: connect.reason, ..connect_stage.timeout_failure() };
            Err(AttemptError::EndpointFailed { failure, reached: RequestExposure::NotSent })
        }
    }
}

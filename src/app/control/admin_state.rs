//! State that the admin listener reads and changes; shared on the control thread only.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::dataplane::shared::InstanceShared;
use crate::app::ops::admin::access::AdminAccess;
use crate::app::ops::api::{ConfigJson, ProcessJson, WallClock};
use crate::app::ops::drill::DrillRegistry;
use crate::app::ops::ledger::LedgerHandle;
use crate::logic::director::Director;

use super::control_lag::ControlLag;
use super::directors::Directors;
use super::discovery::Discovery;
use super::orders::order_store::OrderStore;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifecyclePhase {
    Serving,
    /// Shutting down, or exiting after a handover.
    Stopping,
}

/// Written by the control loop; the admin listener reads it, gives orders and starts drills.
pub struct AdminState {
    pub directors: RefCell<Directors>,
    /// Endpoints found by DNS name.
    pub discovery: RefCell<Discovery>,
    pub config: RefCell<ConfigJson>,
    pub process: RefCell<ProcessJson>,
    pub phase: Cell<LifecyclePhase>,
    /// Cancelled once another process serves the admin listener.
    pub handed_over: CancellationToken,
    /// TLS and token of the admin listener.
    pub admin_access: RefCell<AdminAccess>,
    /// Open connections to the admin listener and the status listener.
    pub admin_connections: TaskTracker,
    pub lag: ControlLag,
    pub ledger: LedgerHandle,
    /// Past drills, and at most one that runs.
    pub drills: RefCell<DrillRegistry>,
    /// Wakes control after the admin listener has changed drills or orders.
    pub drill_wake: Notify,
    pub order_store: OrderStore,
    /// An upgrade is in progress. Orders are refused meanwhile: the successor would not receive
    /// them.
    pub is_handing_over: Cell<bool>,
    pub shared: Arc<InstanceShared>,
    /// Converts instants to times of day.
    pub clock: WallClock,
}

impl AdminState {
    /// Production's director.
    pub fn director(&self) -> Ref<'_, Director> {
        Ref::map(self.directors.borrow(), Directors::production)
    }

    /// Production's director.
    pub fn director_mut(&self) -> RefMut<'_, Director> {
        RefMut::map(self.directors.borrow_mut(), Directors::production_mut)
    }
}

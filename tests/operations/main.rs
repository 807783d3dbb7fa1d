//! What operators see and do: logs, incidents, orders, upgrades, the end.

#[path = "../support/mod.rs"]
mod support;

mod explain;
mod ledger;
mod observe;
mod orders;
mod shutdown;
mod stored_formats;
mod upgrade;

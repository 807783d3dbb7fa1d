//! Operation: logs, incidents, orders, upgrades, shutdown.

#[path = "../support/mod.rs"]
mod support;

mod explain;
mod ledger;
mod observe;
mod operator_listeners;
mod orders;
mod shutdown;
mod stored_formats;
mod upgrade;

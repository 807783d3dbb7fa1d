//! The process: start and stop of an instance, its listeners and workers, signals, the service
//! manager, the memory monitor, and upgrades that pass the listeners to a new process.

pub mod instance;
pub mod listeners;
pub mod memory_monitor;
pub mod scheduling_delay;
pub mod service_manager;
pub mod upgrade;

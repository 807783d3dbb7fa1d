//! TODO-ROOM app/runtime

pub mod instance;
pub mod listeners;
pub mod memory_monitor;
pub mod service_manager;
pub mod upgrade;

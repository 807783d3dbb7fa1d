//! What can be seen without load: layers of the source, the configuration, the commands, and what must
//! hold of any bytes.

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod config;
mod config_checks;
mod layers;
mod properties;
mod security_table;

//! Checks that need no load: the rules of the house, the configuration, the commands, and
//! properties of parsers over arbitrary bytes.

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod config;
mod config_checks;
mod properties;
mod reference;
mod security_table;
mod style;

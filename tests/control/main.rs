//! Control: probes, evidence, names, reloads, steering, drills.

#[path = "../support/mod.rs"]
mod support;

mod discovery;
mod drill;
mod evidence;
mod health;
mod probes;
mod reload;
mod steering;

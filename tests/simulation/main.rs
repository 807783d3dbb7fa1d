//! The production director in the simulated world, and the predictions made with it.

#[path = "../support/mod.rs"]
mod support;

mod predict;
mod seeded;
mod tune;

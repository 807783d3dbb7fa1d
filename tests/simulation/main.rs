//! The simulated world: the production director in it, and the predictions that are made with it.

#[path = "../support/mod.rs"]
mod support;

mod predict;
mod seeded;
mod tune;

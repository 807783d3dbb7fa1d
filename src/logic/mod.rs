//! The pure core: decisions without effects.

pub mod id;
pub mod topology;

pub mod route;

//! The configuration file: text to a checked [`model::Config`], with every error located.

pub mod model;

//! TODO-ROOM logic/probing

pub mod detection_window;
pub mod probe;
pub mod probe_schedule;

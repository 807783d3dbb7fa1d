//! Active health checks: probe schedule, probe content, and the predicted detection window.
//!
//! Inputs: the declared probes and detection settings, the health state of an endpoint, and time.
//! Outputs: the due time of the next probe, the outcome of an answer, and the bounds of the
//! detection window in closed form. May use: `model`.

pub mod detection_window;
pub mod probe;
pub mod probe_schedule;

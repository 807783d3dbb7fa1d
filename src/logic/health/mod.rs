//! Health of one endpoint: from evidence to the verdict and back.
//!
//! Inputs: probe outcomes, failures of live requests, and time. Outputs: the state of the endpoint
//! (up, suspect, down), ratio tests, and the shares of recovering endpoints. Rules over several
//! endpoints (zone verdicts, eviction budget, outliers) are in `director`. May use: `model`,
//! `probing`.

pub mod attempt_recorder;
pub mod endpoint_health;
pub mod evidence;
pub mod failure_ratio;
pub mod latency_baseline;
pub mod recovery;

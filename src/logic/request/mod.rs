//! Rules of a single request: retry safety, budgets, timeouts, circuit breakers and rate limits.
//!
//! Inputs: the route's settings, the attempts so far, and time. Outputs: permits, and the decision
//! to wait, to retry or to give up. The data plane and the simulator apply the same rules. May use:
//! `model`.

pub mod attribution;
pub mod breaker;
pub mod identity_fields;
pub mod limits;
pub mod pool_latency;
pub mod rate_limit;
pub mod request_plan;
pub mod response_timeout;
pub mod retry;
pub mod server_errors;
pub mod slow_requests;
pub mod total_deadline;

//! TODO-ROOM logic/request

pub mod breaker;
pub mod limits;
pub mod rate_limit;
pub mod response_timeout;
pub mod retry;
pub mod server_errors;

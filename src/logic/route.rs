//! Host and path to route, compiled once per configuration.

use std::sync::Arc;
use std::time::Duration;

/// One route as declared, with its own timeouts and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteSpec {
    /// Unique; given in the file, or made of host and path.
    pub name: Arc<str>,
    /// Exact host, lower case, without a port; absent matches every host.
    pub host: Option<String>,
    /// Path prefix; begins with `/`.
    pub path: String,
    /// The pool's name.
    pub pool: Arc<str>,
    /// When and how often a request is sent again.
    pub retry: RetrySpec,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// Largest request body in bytes; absent means unlimited.
    pub body_bytes: Option<u64>,
}

/// When and how often a request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySpec {
    /// Tries in all, the first included; 1 switches sending again off.
    pub attempts: u32,
    /// Largest request body that is held for a second try, in bytes.
    pub buffer_bytes: usize,
    /// Resends, as a percentage of the requests of the last ten seconds.
    pub budget_percent: u32,
    /// Resends per second that are allowed whatever the traffic.
    pub budget_floor: u32,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self { attempts: 3, buffer_bytes: 64 * 1024, budget_percent: 20, budget_floor: 10 }
    }
}

/// How long each step of a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To open a connection to an endpoint.
    pub connect: Duration,
    /// From the request's last byte to the response head, for one try.
    pub response: Duration,
    /// Between two pieces of a body, in either direction.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(30),
            idle: Duration::from_secs(60),
        }
    }
}

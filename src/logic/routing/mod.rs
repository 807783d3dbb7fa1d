//! Routing: the route of a request, and the changes that the route makes to it.
//!
//! Inputs: the declared routes ([`RouteSpec`]) and a request as host, path, query, method and
//! headers ([`RouteRequest`]). [`RouteTable`] is compiled once per configuration and finds the
//! route by host and path. `path_normalisation` brings paths to one form first. May use: `request`
//! (retry and rate settings), `steering` (policies), `http` types.

mod action;
mod condition;
mod matching;
mod path_normalisation;
mod pattern;
mod prefix_tree;
mod route_table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::incident::slo::SloObjectives;
use super::request::rate_limit::RateLimitSpec;
use super::request::server_errors::ServerErrors;
use super::steering::SteeringPolicy;

pub use self::action::{
    DirectResponse, FallbackAction, HeaderMutations, MirrorPolicy, PathChange, RedirectAction,
    RequestRewrite, RouteAction, WeightedPool,
};
pub use self::condition::{Conditions, RouteRequest, ValueMatcher};
pub use self::matching::{HostMatch, PathMatch};
pub use self::path_normalisation::{EncodedSlash, InvalidPath, PathNormalisation, normalise};
pub use self::pattern::{Pattern, Substitution, SubstitutionError};
pub use self::route_table::{CompiledRoute, PoolRoute, RouteTable};

/// One declared route with its own timeouts and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteSpec {
    /// Unique; configured, or derived from host and path.
    pub name: Arc<str>,
    pub host: HostMatch,
    pub path: PathMatch,
    /// Further conditions; all must hold.
    pub conditions: Conditions,
    pub action: RouteAction,
    /// Changes to host and path of the upstream request.
    pub rewrite: RequestRewrite,
    /// Changes to the request's header fields.
    pub request_headers: HeaderMutations,
    /// Changes to the response's header fields.
    pub response_headers: HeaderMutations,
    /// Strict-Transport-Security (RFC 6797), added to responses over TLS.
    pub hsts: Option<HeaderValue>,
    pub mirror: Option<MirrorPolicy>,
    /// Used when no endpoint of the route's pool is left to try.
    pub fallback: Option<FallbackAction>,
    pub retry: RetrySpec,
    pub timeouts: RouteTimeouts,
    /// Largest request body in bytes; `None` means unlimited.
    pub max_body_bytes: Option<u64>,
    /// Limit on the request rate; `None` means unlimited.
    pub rate_limit: Option<RateLimitSpec>,
    /// Overrides the steering policy of the pool.
    pub steer: Option<SteeringPolicy>,
    pub slo: Option<SloObjectives>,
    /// Allows the upgrade to WebSocket (RFC 6455) if the endpoint accepts it.
    pub is_websocket_allowed: bool,
}

impl RouteSpec {
    /// A route with default settings.
    pub fn new(
        name: impl Into<Arc<str>>,
        host: HostMatch,
        path: PathMatch,
        action: RouteAction,
    ) -> Self {
        Self {
            name: name.into(),
            host,
            path,
            conditions: Conditions::default(),
            action,
            rewrite: RequestRewrite::default(),
            request_headers: HeaderMutations::default(),
            response_headers: HeaderMutations::default(),
            hsts: None,
            mirror: None,
            fallback: None,
            retry: RetrySpec::default(),
            timeouts: RouteTimeouts::default(),
            max_body_bytes: None,
            rate_limit: None,
            steer: None,
            slo: None,
            is_websocket_allowed: true,
        }
    }

    /// The names of all pools of the route: of its action, its mirror and its fallback.
    pub fn pool_names(&self) -> impl Iterator<Item = &Arc<str>> {
        let shares = match &self.action {
            RouteAction::Pools(shares) => shares.as_slice(),
            RouteAction::Redirect(_) | RouteAction::Respond(_) => &[],
        };
        let fallback = match &self.fallback {
            Some(FallbackAction::Pool(pool)) => Some(pool),
            _ => None,
        };
        let mirror = self.mirror.as_ref().map(|mirror| &mirror.pool);
        shares.iter().map(|share| &share.pool).chain(mirror).chain(fallback)
    }
}

impl RouteAction {
    /// Sends all requests to one pool.
    pub fn to_pool(name: impl Into<Arc<str>>) -> Self {
        Self::Pools(vec![WeightedPool { pool: name.into(), weight: 1 }])
    }
}

/// The conditions and the limits of retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySpec {
    /// Maximum number of attempts, the first included; 1 disables retries.
    pub attempts: u32,
    /// Largest request body that is buffered for a retry, in bytes.
    pub max_buffer_bytes: usize,
    /// Retry budget as a percentage of the requests of the last ten seconds.
    pub budget_percent: u32,
    /// Hedges as a percentage of the requests of the last ten seconds; the retry budget pays for
    /// them as well.
    pub hedge_percent: u32,
    /// Retries per second that are allowed at any load.
    pub budget_floor_per_second: u32,
    /// Response statuses that are retried.
    pub statuses: ServerErrors,
    /// Sends a request to a second endpoint when it waits longer than the pool's stall bound.
    pub is_hedged: bool,
    /// Treats requests with an `Idempotency-Key` as repeatable, whatever the method.
    pub is_idempotency_key_trusted: bool,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            attempts: 3,
            max_buffer_bytes: 64 * 1024,
            budget_percent: 20,
            hedge_percent: 5,
            budget_floor_per_second: 10,
            statuses: ServerErrors::default(),
            is_hedged: true,
            is_idempotency_key_trusted: false,
        }
    }
}

/// Bounds on the duration of each step of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTimeouts {
    /// Opening a connection to an endpoint.
    pub connect: Duration,
    /// From the last byte of the request to the response head, for one attempt.
    pub response: Duration,
    /// Between two parts of a body, in either direction.
    pub idle: Duration,
    /// From the arrival of the request to the response head, over all attempts; `None` means
    /// unlimited.
    pub total: Option<Duration>,
    /// Without a byte in either direction of a tunnel.
    pub tunnel: Duration,
}

impl Default for RouteTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            total: None,
            tunnel: Duration::from_hours(1),
        }
    }
}

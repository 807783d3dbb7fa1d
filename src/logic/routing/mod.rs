//! Which requests go where, and what is done to them on the way.

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

/// One route as declared, with its own timeouts and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteSpec {
    /// Unique; given in the file, or made of host and path.
    pub name: Arc<str>,
    /// The hosts that it is for.
    pub host: HostMatch,
    /// The paths that it is for.
    pub path: PathMatch,
    /// What else it asks for.
    pub conditions: Conditions,
    pub action: RouteAction,
    /// How endpoints are asked for something else than the client asked for.
    pub rewrite: RequestRewrite,
    /// What is done to the request's header fields.
    pub request_headers: HeaderMutations,
    /// What is done to the response's header fields.
    pub response_headers: HeaderMutations,
    /// Strict-Transport-Security (RFC 6797), for answers over TLS.
    pub hsts: Option<HeaderValue>,
    pub mirror: Option<MirrorPolicy>,
    /// What is left when nothing else is.
    pub fallback: Option<FallbackAction>,
    /// When and how often a request is sent again.
    pub retry: RetrySpec,
    /// How long each step may take.
    pub timeouts: RouteTimeouts,
    /// Largest request body in bytes; absent means unlimited.
    pub max_body_bytes: Option<u64>,
    /// How many requests may come; absent means any number.
    pub rate_limit: Option<RateLimitSpec>,
    /// How requests are led, instead of as their pool has it.
    pub steer: Option<SteeringPolicy>,
    pub slo: Option<SloObjectives>,
    /// Clients may go on in WebSocket, if the endpoint does.
    pub is_websocket_allowed: bool,
}

impl RouteSpec {
    /// A route with nothing but what it is for and what answers.
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

    /// Every pool that it leads to, by its name: for requests, for copies, as a last resort.
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
    /// All requests to one pool.
    pub fn to_pool(name: impl Into<Arc<str>>) -> Self {
        Self::Pools(vec![WeightedPool { pool: name.into(), weight: 1 }])
    }
}

/// When and how often a request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySpec {
    /// Tries in all, the first included; 1 switches sending again off.
    pub attempts: u32,
    /// Largest request body that is held for a second try, in bytes.
    pub max_buffer_bytes: usize,
    /// Resends, as a percentage of the requests of the last ten seconds.
    pub budget_percent: u32,
    /// Resends per second that are allowed whatever the traffic.
    pub budget_floor_per_second: u32,
    /// Statuses for which it is sent again, when its endpoint answered with one of them.
    pub statuses: ServerErrors,
    /// A request that waits for longer than the pool's stall bound is asked of a second endpoint too.
    pub is_hedged: bool,
    /// What has an `Idempotency-Key` may be sent again whatever its method.
    pub is_idempotency_key_trusted: bool,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            attempts: 3,
            max_buffer_bytes: 64 * 1024,
            budget_percent: 20,
            budget_floor_per_second: 10,
            statuses: ServerErrors::default(),
            is_hedged: true,
            is_idempotency_key_trusted: false,
        }
    }
}

/// How long each step of a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTimeouts {
    /// To open a connection to an endpoint.
    pub connect: Duration,
    /// From the request's last byte to the response head, for one try.
    pub response: Duration,
    /// Between two pieces of a body, in either direction.
    pub idle: Duration,
    /// From the request's arrival to the response head, over all tries; absent means unlimited.
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

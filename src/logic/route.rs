//! Which requests go where, and what is done to them on the way.

mod action;
mod condition;
mod matching;
mod path;
mod pattern;
mod table;
#[cfg(test)]
mod tests;
mod tree;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::rate::RateSpec;
use super::slo::Slo;
use super::statuses::ServerErrors;
use super::steer::Policy;

pub use self::action::{
    Action, Fallback, Fixed, HeaderChanges, Mirror, PathChange, Redirect, Rewrite, Share,
};
pub use self::condition::{Ask, Conditions, Test};
pub use self::matching::{HostMatch, PathMatch};
pub use self::path::{BadPath, EncodedSlash, PathRules, normalise};
pub use self::pattern::{Pattern, Substitution, SubstitutionError};
pub use self::table::{Route, RouteTable, Rule};

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
    /// What answers.
    pub action: Action,
    /// How endpoints are asked for something else than the client asked for.
    pub rewrite: Rewrite,
    /// What is done to the request's header fields.
    pub request_headers: HeaderChanges,
    /// What is done to the response's header fields.
    pub response_headers: HeaderChanges,
    /// Strict-Transport-Security (RFC 6797), for answers over TLS.
    pub hsts: Option<HeaderValue>,
    /// Who gets copies.
    pub mirror: Option<Mirror>,
    /// What is left when nothing else is.
    pub fallback: Option<Fallback>,
    /// When and how often a request is sent again.
    pub retry: RetrySpec,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// Largest request body in bytes; absent means unlimited.
    pub body_bytes: Option<u64>,
    /// How many requests may come; absent means any number.
    pub rate: Option<RateSpec>,
    /// How requests are led, instead of as their pool has it.
    pub steer: Option<Policy>,
    /// What is promised.
    pub slo: Option<Slo>,
    /// Clients may go on in WebSocket, if the endpoint does.
    pub websocket: bool,
}

impl RouteSpec {
    /// A route with nothing but what it is for and what answers.
    #[must_use]
    pub fn new(
        name: impl Into<Arc<str>>,
        host: HostMatch,
        path: PathMatch,
        action: Action,
    ) -> Self {
        Self {
            name: name.into(),
            host,
            path,
            conditions: Conditions::default(),
            action,
            rewrite: Rewrite::default(),
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
            hsts: None,
            mirror: None,
            fallback: None,
            retry: RetrySpec::default(),
            timeouts: Timeouts::default(),
            body_bytes: None,
            rate: None,
            steer: None,
            slo: None,
            websocket: true,
        }
    }

    /// Every pool that it leads to, by its name: for requests, for copies, as a last resort.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<str>> {
        let shares = match &self.action {
            Action::Pools(shares) => shares.as_slice(),
            Action::Redirect(_) | Action::Respond(_) => &[],
        };
        let fallback = match &self.fallback {
            Some(Fallback::Pool(pool)) => Some(pool),
            _ => None,
        };
        let mirror = self.mirror.as_ref().map(|mirror| &mirror.pool);
        shares.iter().map(|share| &share.pool).chain(mirror).chain(fallback)
    }
}

impl Action {
    /// All requests to one pool.
    #[must_use]
    pub fn pool(name: impl Into<Arc<str>>) -> Self {
        Self::Pools(vec![Share { pool: name.into(), weight: 1 }])
    }
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
    /// Statuses for which it is sent again, when its endpoint answered with one of them.
    pub statuses: ServerErrors,
    /// A request that waits for longer than the pool's stall bound is asked of a second endpoint too.
    pub hedge: bool,
    /// What has an `Idempotency-Key` may be sent again whatever its method.
    pub idempotency_key: bool,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            attempts: 3,
            buffer_bytes: 64 * 1024,
            budget_percent: 20,
            budget_floor: 10,
            statuses: ServerErrors::default(),
            hedge: true,
            idempotency_key: false,
        }
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
    /// From the request's arrival to the response head, over all tries; absent means unlimited.
    pub total: Option<Duration>,
    /// Without a byte in either direction of a tunnel.
    pub tunnel: Duration,
}

impl Default for Timeouts {
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

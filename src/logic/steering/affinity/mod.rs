//! Session affinity: the requests of one client stay at one endpoint.
//!
//! Affinity by header or source address hashes the key ([`super::balance::consistent_hash`]) and
//! stores nothing. Affinity by cookie stores an [`AffinityPin`] at the client. A pinned endpoint
//! that takes traffic receives the request whatever its tier is, so the pin outranks the tier
//! shares.

mod index;
mod pin;
mod secrets;

pub use index::{AffinityIndex, AffinityRequest, AffinityZone, PinnedEndpoint};
pub use pin::{AffinityPin, ServedRequest};
pub use secrets::CookieSecrets;

use std::sync::Arc;
use std::time::Duration;

use super::balance::HashKeySource;

/// The key that keeps requests at an endpoint (`affinity` in the file).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAffinity {
    /// A key that the request has anyway.
    Key(HashKeySource),
    /// A cookie that this instance sets.
    Cookie(AffinityCookie),
}

/// The settings of an affinity cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AffinityCookie {
    /// The name of the cookie.
    pub name: Arc<str>,
    /// Lifetime after the last write; `None` means a session cookie.
    pub ttl: Option<Duration>,
    /// What happens to a client when its first endpoint recovers.
    pub failback: FailbackPolicy,
    /// Time for which a draining endpoint still receives its pinned requests.
    pub drain_timeout: Duration,
    /// The secrets that seal the cookie; `None` uses those of the instance.
    pub secrets: Option<CookieSecrets>,
}

/// Default of [`AffinityCookie::drain_timeout`]: ten minutes.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_mins(10);

/// What happens to a client when the endpoint that it was moved away from recovers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailbackPolicy {
    #[default]
    ReturnToPreferred,
    /// The client keeps the endpoint that it was moved to.
    StayOnCurrent,
}

//! One order: its action, its scope and its effect on a share.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::model::id::Locality;
use crate::logic::model::selector::TopologySelector;

/// Default time that long-lived connections may stay after a drain.
pub const DEFAULT_DRAIN_DEADLINE: Duration = Duration::from_secs(30);

/// Upper bound of both durations of a drain.
pub const MAX_DRAIN_DURATION: Duration = Duration::from_hours(24);

/// Upper bound on the length of a note, in bytes.
pub const MAX_NOTE_BYTES: usize = 200;

/// Upper bound on the length of an author, in bytes.
pub const MAX_AUTHOR_BYTES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderAction {
    Drain {
        /// Time over which the share falls to zero.
        fade_duration: Duration,
        /// Time that remaining connections may stay after the fade.
        deadline: Duration,
    },
    /// Overrides the declared weight.
    Weight(u32),
    /// Exempts the scope from earlier drains of it, or of a wider scope.
    Serve,
}

impl OrderAction {
    pub const NAMES: [&str; 3] = ["drain", "weight", "serve"];

    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain { .. } => Self::NAMES[0],
            Self::Weight(_) => Self::NAMES[1],
            Self::Serve => Self::NAMES[2],
        }
    }

    /// Whether an order with this action replaces an earlier one with `other` for the same scope.
    pub(super) fn can_replace(self, other: Self) -> bool {
        matches!(self, Self::Weight(_)) == matches!(other, Self::Weight(_))
    }
}

/// The source of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderSource {
    /// A request to the admin API.
    Operator,
    Config,
}

impl OrderSource {
    pub const ALL: [Self; 2] = [Self::Operator, Self::Config];

    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "api",
            Self::Config => "file",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == word)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorOrder {
    /// Ascending: a later order has a larger id.
    pub id: u64,
    pub scope: TopologySelector,
    /// Restricts the order to this pool; `None` applies to every pool that contains the scope.
    pub pool: Option<Arc<str>>,
    pub action: OrderAction,
    pub effective_since: Instant,
    /// Time of automatic expiry; `None` requires an explicit revocation.
    pub expires_at: Option<Instant>,
    pub source: OrderSource,
    /// The operator's name, if it was given.
    pub author: Option<Arc<str>>,
    /// The reason as given by the operator.
    pub note: Option<Arc<str>>,
}

impl fmt::Display for OperatorOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            OrderAction::Drain { .. } => write!(f, "drain {}", self.scope),
            OrderAction::Weight(weight) => write!(f, "weight {} {weight}", self.scope),
            OrderAction::Serve => write!(f, "restore {}", self.scope),
        }?;
        match &self.pool {
            Some(pool) => write!(f, " in pool {pool}"),
            None => Ok(()),
        }
    }
}

/// An endpoint that orders are matched against.
#[derive(Clone, Copy, Debug)]
pub struct OrderedEndpoint<'a> {
    pub pool: &'a str,
    pub locality: &'a Locality,
    pub address: SocketAddr,
}

/// The width of a scope: an exemption lifts earlier drains of the same or a wider scope.
pub(super) fn scope_rank(scope: &TopologySelector) -> u8 {
    match scope {
        TopologySelector::Endpoint(_) => 0,
        TopologySelector::Zone(_) => 1,
        TopologySelector::Region(_) => 2,
    }
}

impl OperatorOrder {
    /// Whether the scope and the pool of the order contain the endpoint.
    pub fn has_effect_on(&self, endpoint: &OrderedEndpoint<'_>) -> bool {
        self.pool.as_deref().is_none_or(|pool| pool == endpoint.pool)
            && self.scope.covers(endpoint.locality, endpoint.address)
    }

    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|expires_at| now >= expires_at)
    }

    /// The fraction that the order leaves of a share, in thousandths.
    pub fn share_permille(&self, now: Instant) -> u32 {
        match self.action {
            OrderAction::Drain { fade_duration, .. } => {
                fading_share_permille(self.effective_since, fade_duration, now)
            }
            OrderAction::Weight(_) | OrderAction::Serve => FULL_SHARE_PERMILLE,
        }
    }
}

/// The remaining fraction, in thousandths, of a share that falls to zero linearly over
/// `fade_duration`.
pub fn fading_share_permille(since: Instant, fade_duration: Duration, now: Instant) -> u32 {
    let elapsed = now.saturating_duration_since(since);
    if elapsed >= fade_duration {
        return 0;
    }
    let fraction = elapsed.as_secs_f64() / fade_duration.as_secs_f64();
    // Zero only at the end.
    ((f64::from(FULL_SHARE_PERMILLE) * (1.0 - fraction)) as u32).clamp(1, FULL_SHARE_PERMILLE)
}

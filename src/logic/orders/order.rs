//! One order: its action, its scope and its effect on a share.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::model::id::Locality;
use crate::logic::model::selector::TopologySelector;

/// How long long-lived connections may stay where nothing new comes any more, unless said otherwise.
pub const DEFAULT_DRAIN_DEADLINE: Duration = Duration::from_secs(30);

/// No share takes longer to go, and no connection longer to end.
pub const MAX_DRAIN_DURATION: Duration = Duration::from_hours(24);

/// Bytes of a note.
pub const MAX_NOTE_BYTES: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderAction {
    Drain {
        /// The share goes to nothing over this time.
        fade_duration: Duration,
        /// After that, what lasts may stay for so long.
        deadline: Duration,
    },
    /// Another weight than the declared one.
    Weight(u32),
    /// Requests, in spite of an earlier order to drain this or what it is part of.
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

    /// Whether the later of both takes the place of the earlier, if they are about the same thing.
    pub(super) fn can_replace(self, other: Self) -> bool {
        matches!(self, Self::Weight(_)) == matches!(other, Self::Weight(_))
    }
}

/// Who has given an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderSource {
    /// Somebody at the admin listener.
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
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorOrder {
    /// Its number: a later order has a greater one.
    pub id: u64,
    /// What it is about.
    pub scope: TopologySelector,
    /// In this pool only; otherwise in every pool that has it.
    pub pool: Option<Arc<str>>,
    pub action: OrderAction,
    pub effective_since: Instant,
    /// It is over then; `None` if somebody has to say so.
    pub expires_at: Option<Instant>,
    /// Who has given it.
    pub source: OrderSource,
    /// Why, in somebody's words.
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

/// An endpoint, as orders are about it.
#[derive(Clone, Copy, Debug)]
pub struct OrderedEndpoint<'a> {
    pub pool: &'a str,
    pub locality: &'a Locality,
    pub address: SocketAddr,
}

/// How much it is that is ordered about: what is said of something lifts what was said before of as
/// much, or of more that it is part of.
pub(super) fn scope_rank(scope: &TopologySelector) -> u8 {
    match scope {
        TopologySelector::Endpoint(_) => 0,
        TopologySelector::Zone(_) => 1,
        TopologySelector::Region(_) => 2,
    }
}

impl OperatorOrder {
    /// Whether it is about this endpoint.
    pub fn has_effect_on(&self, endpoint: &OrderedEndpoint<'_>) -> bool {
        self.pool.as_deref().is_none_or(|pool| pool == endpoint.pool)
            && self.scope.covers(endpoint.locality, endpoint.address)
    }

    /// Whether its time is up.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|until| now >= until)
    }

    /// What it leaves of a share, in thousandths.
    pub fn share_permille(&self, now: Instant) -> u32 {
        match self.action {
            OrderAction::Drain { fade_duration: over, .. } => {
                fading_share_permille(self.effective_since, over, now)
            }
            OrderAction::Weight(_) | OrderAction::Serve => FULL_SHARE_PERMILLE,
        }
    }
}

/// What is left, in thousandths, of a share that goes to nothing over this time.
pub fn fading_share_permille(since: Instant, over: Duration, now: Instant) -> u32 {
    let passed = now.saturating_duration_since(since);
    if passed >= over {
        return 0;
    }
    let fraction = passed.as_secs_f64() / over.as_secs_f64();
    // Nothing is left at the end, and not before.
    ((f64::from(FULL_SHARE_PERMILLE) * (1.0 - fraction)) as u32).clamp(1, FULL_SHARE_PERMILLE)
}

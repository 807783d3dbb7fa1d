//! The plan of a drill: which zone seems to fail, how, for which requests, for how long, and how
//! many requests may fail.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::logic::model::id::Locality;
use crate::logic::model::topology::{PoolSpec, Topology};

use super::fault::DrillFault;

/// All parameters of a drill.
#[derive(Clone, Debug, PartialEq)]
pub struct DrillPlan {
    /// The zone that seems to fail.
    pub zone: Locality,
    /// Restricts the failure to this endpoint of the zone.
    pub endpoint: Option<SocketAddr>,
    /// Restricts the drill to this pool; otherwise it covers every pool that has the zone.
    pub pool: Option<Arc<str>>,
    pub fault: DrillFault,
    /// Share of the requests that the drill takes.
    pub share: SharePercent,
    pub length: Duration,
    /// Restricts the drill to requests with this header.
    pub header_match: Option<HeaderMatch>,
    /// Failures after which the drill is interrupted.
    pub failure_budget: FailureBudget,
    /// Started by an operator; otherwise by the practice schedule.
    pub is_manual: bool,
}

/// A pool that a drill covers.
#[derive(Clone, Debug)]
pub struct CoveredPool {
    /// Index of the pool in the configuration.
    pub index: usize,
    pub spec: Arc<PoolSpec>,
}

impl DrillPlan {
    /// Pools of `topology` that the drill covers.
    pub fn covered_pools(&self, topology: &Topology) -> Vec<CoveredPool> {
        let is_covered = |pool: &PoolSpec| {
            self.pool.as_ref().is_none_or(|only| *only == pool.name)
                && pool.zones.iter().any(|zone| zone.locality == self.zone)
        };
        let pools = topology.pools.iter().enumerate().filter(|(_, spec)| is_covered(spec));
        pools.map(|(index, spec)| CoveredPool { index, spec: Arc::clone(spec) }).collect()
    }

    /// Whether this endpoint is one of those that seem to fail.
    pub fn is_target(&self, place: &Locality, address: SocketAddr) -> bool {
        *place == self.zone && self.endpoint.is_none_or(|only| only == address)
    }
}

/// A share of requests in whole percent, from 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharePercent(u32);

impl SharePercent {
    /// `None` unless `percent` is from 1 to 100.
    pub fn new(percent: u32) -> Option<Self> {
        (1..=100).contains(&percent).then_some(Self(percent))
    }

    /// Parses `25%`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::new(text.trim().strip_suffix('%')?.parse().ok()?)
    }

    pub fn percent(self) -> u32 {
        self.0
    }

    /// The share as a number from 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

/// A header that selects requests for a drill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    name: HeaderName,
    value: HeaderValue,
}

impl HeaderMatch {
    /// Parses `name=value`.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.split_once('=')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        Some(Self { name, value: HeaderValue::from_str(value.trim()).ok()? })
    }

    /// Whether `headers` contain this name with this value.
    pub fn is_match(&self, headers: &HeaderMap) -> bool {
        headers.get_all(&self.name).iter().any(|value| *value == self.value)
    }
}

impl fmt::Display for HeaderMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, String::from_utf8_lossy(self.value.as_bytes()))
    }
}

/// Number of failed requests above which a drill is interrupted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FailureBudget {
    /// A part (0 to 1) of the requests that the drill is expected to take; at least one request.
    Fraction(f64),
    Requests(u64),
}

impl Default for FailureBudget {
    fn default() -> Self {
        Self::Fraction(0.01)
    }
}

impl FailureBudget {
    /// Parses `1%`, `0.5%` or `20`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let Some(percent) = text.strip_suffix('%') else {
            return text.parse().ok().map(Self::Requests);
        };
        let percent: f64 = percent.parse().ok()?;
        (0.0..=100.0).contains(&percent).then_some(Self::Fraction(percent / 100.0))
    }

    /// Number of failures allowed if the drill takes `expected` requests.
    pub fn allowed_failures(self, expected: f64) -> u64 {
        match self {
            Self::Fraction(part) => ((part * expected) as u64).max(1),
            Self::Requests(requests) => requests,
        }
    }
}

impl fmt::Display for FailureBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fraction(part) => write!(f, "{}%", (part * 1e6).round() / 1e4),
            Self::Requests(requests) => write!(f, "{requests}"),
        }
    }
}

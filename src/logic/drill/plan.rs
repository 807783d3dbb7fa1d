//! What an operator asks for: which zone, how it is to fail, for whom, for how long, and at what cost
//! at most.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::logic::model::id::Locality;

use super::fault::DrillFault;

/// How long a drill may be.
pub const LENGTH_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

/// Everything that is said of a drill before it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct DrillPlan {
    /// The zone that seems to fail.
    pub zone: Locality,
    /// Of it, this endpoint only.
    pub endpoint: Option<SocketAddr>,
    /// In this pool only; otherwise in every pool that has the zone.
    pub pool: Option<Arc<str>>,
    pub fault: DrillFault,
    /// Of how many requests.
    pub share: SharePercent,
    pub length: Duration,
    /// Of those only that have this header.
    pub header_match: Option<HeaderMatch>,
    /// What it may cost.
    pub failure_budget: FailureBudget,
    /// Somebody asked for it; otherwise it is practice.
    pub is_manual: bool,
}

/// A share of requests in whole percent, from 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharePercent(u32);

impl SharePercent {
    /// `None` unless it is from 1 to 100.
    pub fn new(percent: u32) -> Option<Self> {
        (1..=100).contains(&percent).then_some(Self(percent))
    }

    /// Reads `25%`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::new(text.trim().strip_suffix('%')?.parse().ok()?)
    }

    pub fn percent(self) -> u32 {
        self.0
    }

    /// From 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

/// A header that requests have that are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    name: HeaderName,
    value: HeaderValue,
}

impl HeaderMatch {
    /// Reads `name=value`.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.split_once('=')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        Some(Self { name, value: HeaderValue::from_str(value.trim()).ok()? })
    }

    /// Whether these headers have it.
    pub fn is_match(&self, headers: &HeaderMap) -> bool {
        headers.get_all(&self.name).iter().any(|value| *value == self.value)
    }
}

impl fmt::Display for HeaderMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, String::from_utf8_lossy(self.value.as_bytes()))
    }
}

/// How many requests may fail before a drill is given up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FailureBudget {
    /// This part of those that the drill is expected to take, from 0 to 1; always one request.
    Fraction(f64),
    Requests(u64),
}

impl Default for FailureBudget {
    fn default() -> Self {
        Self::Fraction(0.01)
    }
}

impl FailureBudget {
    /// Reads `1%`, `0.5%` or `20`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let Some(percent) = text.strip_suffix('%') else {
            return text.parse().ok().map(Self::Requests);
        };
        let percent: f64 = percent.parse().ok()?;
        (0.0..=100.0).contains(&percent).then_some(Self::Fraction(percent / 100.0))
    }

    /// How many of `expected` requests may fail.
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

/// Reads `250ms`, `20s`, `5m`, `1h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit_start = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_start);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.trim() {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= *LENGTH_RANGE.end())
}

//! Server errors: which ones are retried, and which ones are the endpoint's failure.

use std::ops::RangeInclusive;

/// The statuses that a [`ServerErrors`] can hold.
pub const SERVER_ERRORS: RangeInclusive<u16> = 500..=599;

/// A set of statuses from 500 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerErrors(u128);

impl ServerErrors {
    pub const NONE: Self = Self(0);

    /// The statuses in `ranges`; other than server errors are left out.
    pub fn from_ranges(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        let statuses = ranges.into_iter().flatten().filter(|s| SERVER_ERRORS.contains(s));
        Self(statuses.fold(0, |bits, status| bits | 1 << (status - SERVER_ERRORS.start())))
    }

    /// Whether the set contains `status`.
    pub fn contains(self, status: u16) -> bool {
        SERVER_ERRORS.contains(&status) && self.0 >> (status - SERVER_ERRORS.start()) & 1 == 1
    }
}

impl Default for ServerErrors {
    /// An internal error, and the three statuses of a gateway or endpoint that cannot serve now.
    fn default() -> Self {
        Self::from_ranges([500..=500, 502..=504])
    }
}

/// Whether a response with this status is the endpoint's failure. 501 (not implemented) and 505
/// (HTTP version not supported) concern the request (RFC 9110 15.6).
pub fn is_endpoint_failure(status: u16) -> bool {
    SERVER_ERRORS.contains(&status) && !matches!(status, 501 | 505)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_set_contains_only_server_errors_of_its_ranges() {
        let set = ServerErrors::from_ranges([500..=501, 599..=700, 1..=2]);
        let had: Vec<u16> = (0..=1_000).filter(|&status| set.contains(status)).collect();
        assert_eq!(had, [500, 501, 599]);
        assert!((0..=1_000).all(|status| !ServerErrors::NONE.contains(status)));
        let usual: Vec<u16> =
            (0..=1_000).filter(|&s| ServerErrors::default().contains(s)).collect();
        assert_eq!(usual, [500, 502, 503, 504]);
    }

    #[test]
    fn request_related_statuses_are_not_endpoint_failures() {
        let failures: Vec<u16> =
            (100..=510).filter(|&status| is_endpoint_failure(status)).collect();
        assert_eq!(failures, [500, 502, 503, 504, 506, 507, 508, 509, 510]);
    }
}

//! Checks of a route's rate limit and upgrades.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::validator::{SettingKey, Validator};
use crate::config::diagnostics::Problem;
use crate::config::file::{Located, LocatedTable, Rate};
use crate::config::units;
use crate::logic::request::rate_limit::{RateLimitKey, RateLimitSpec};

const REQUESTS_RANGE: RangeInclusive<u32> = 1..=100_000_000;
const BURST_RANGE: RangeInclusive<u32> = 1..=100_000_000;
const PER_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=MAX_PERIOD;

/// The longest period of a rate.
const MAX_PERIOD: Duration = Duration::from_hours(24);

/// The highest rate that can be counted exactly.
const MAX_PER_SECOND: u128 = 100_000;

impl Validator<'_> {
    /// Whether clients may upgrade to WebSocket.
    pub(super) fn is_websocket_allowed(&mut self, given: Option<&[Located<String>]>) -> bool {
        let Some(given) = given else { return true };
        let mut has_websocket = false;
        for one in given {
            match one.value.to_ascii_lowercase().as_str() {
                "websocket" => has_websocket = true,
                "h2c" => {
                    let message = "`h2c` is never forwarded: it could smuggle requests";
                    self.diagnostics.error(&one.span, Problem::new(message, "remove it"));
                }
                other => {
                    let message = format!("`{other}` is not a supported upgrade");
                    let help = "write \"websocket\", or an empty list for none";
                    self.diagnostics.error(&one.span, Problem::new(message, help));
                }
            }
        }
        has_websocket
    }

    pub(super) fn rate(&mut self, given: &Option<LocatedTable<Rate>>) -> Option<RateLimitSpec> {
        let LocatedTable { value: given, span: table } = given.as_ref()?;
        if given.requests.is_none() {
            let problem = Problem::new("a rate needs a number of requests", "add `requests = 100`");
            self.report_missing(table, "requests", problem);
        }
        let requests =
            self.integer(&SettingKey::new(table, "requests", &given.requests), &REQUESTS_RANGE, 1);
        let key = SettingKey::new(table, "per", &given.per);
        let per = self.setting(&key, Duration::from_secs(1), |text| {
            let per = units::parse_duration(&text.0)?;
            if PER_RANGE.contains(&per) {
                return Ok(per);
            }
            let message = "`per` must be from 1ms to 24h";
            Err(Problem::new(message, "write a duration such as \"1s\" or \"1m\""))
        });
        let burst =
            self.integer(&SettingKey::new(table, "burst", &given.burst), &BURST_RANGE, requests);
        let key = SettingKey::new(table, "by", &given.by);
        let by = self.setting(&key, RateLimitKey::Client, |text| match text.as_str() {
            "client" => Ok(RateLimitKey::Client),
            "route" => Ok(RateLimitKey::Route),
            other => Err(Problem::new(
                format!("requests are not counted by `{other}`"),
                "write \"client\" or \"route\"",
            )),
        });
        let per_us = per.value.as_micros().max(1);
        if u128::from(requests) * 1_000_000 / per_us > MAX_PER_SECOND {
            let message = format!("a rate of more than {MAX_PER_SECOND} a second cannot be kept");
            let problem = Problem::new(message, "ask for less, or remove `rate`");
            self.diagnostics.error(table, problem);
        }
        let burst_us = per_us * u128::from(burst) / u128::from(requests);
        if burst_us > MAX_PERIOD.as_micros() {
            let problem = Problem::new(
                "the burst is more than the rate gives in a day",
                "write a smaller `burst`, or remove it",
            );
            self.diagnostics.error(table, problem);
        }
        let (requests, burst) = (NonZeroU32::new(requests)?, NonZeroU32::new(burst)?);
        Some(RateLimitSpec { requests, per: per.value, burst, key: by.value })
    }
}

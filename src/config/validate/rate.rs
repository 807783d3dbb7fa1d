//! Checks of how many requests a route takes, and what they may turn into.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::{Check, Key};
use crate::config::file::{Located, Rate, Table};
use crate::config::findings::Flaw;
use crate::config::units;
use crate::logic::rate::{RateKey, RateSpec};

const REQUESTS: RangeInclusive<u32> = 1..=100_000_000;
const BURST: RangeInclusive<u32> = 1..=100_000_000;
const PER: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;

/// Beyond a day a rate is no rate any more.
const LONGEST: Duration = Duration::from_hours(24);

/// The finest that can be counted closely.
const MOST_PER_SECOND: u128 = 100_000;

impl Check<'_> {
    /// Whether clients may go on in WebSocket.
    pub(super) fn upgrade(&mut self, given: Option<&[Located<String>]>) -> bool {
        let Some(given) = given else { return true };
        let mut has_websocket = false;
        for one in given {
            match one.value.to_ascii_lowercase().as_str() {
                "websocket" => has_websocket = true,
                "h2c" => {
                    let message = "`h2c` is never passed on: requests could be smuggled in it";
                    self.findings.error(&one.span, Flaw::new(message, "leave it away"));
                }
                other => {
                    let message = format!("`{other}` is no protocol that is passed on");
                    let mend = "write \"websocket\", or an empty list for none";
                    self.findings.error(&one.span, Flaw::new(message, mend));
                }
            }
        }
        has_websocket
    }

    pub(super) fn rate(&mut self, given: &Option<Table<Rate>>) -> Option<RateSpec> {
        let Table { value: given, span: table } = given.as_ref()?;
        if given.requests.is_none() {
            let flaw = Flaw::new("a rate needs a number of requests", "add `requests = 100`");
            self.missing(table, "requests", flaw);
        }
        let requests = self.whole(&Key::new(table, "requests", &given.requests), &REQUESTS, 1);
        let key = Key::new(table, "per", &given.per);
        let per = self.setting(&key, Duration::from_secs(1), |text| {
            let per = units::duration(&text.0)?;
            if PER.contains(&per) {
                return Ok(per);
            }
            let message = "`per` must be from 1ms to 24h";
            Err(Flaw::new(message, "write a duration such as \"1s\" or \"1m\""))
        });
        let burst = self.whole(&Key::new(table, "burst", &given.burst), &BURST, requests);
        let key = Key::new(table, "by", &given.by);
        let by = self.setting(&key, RateKey::Client, |text| match text.as_str() {
            "client" => Ok(RateKey::Client),
            "route" => Ok(RateKey::Route),
            other => Err(Flaw::new(
                format!("requests cannot be counted by `{other}`"),
                "write \"client\" or \"route\"",
            )),
        });
        let per_us = per.value.as_micros().max(1);
        if u128::from(requests) * 1_000_000 / per_us > MOST_PER_SECOND {
            let message = format!("a rate of more than {MOST_PER_SECOND} a second cannot be kept");
            let flaw = Flaw::new(message, "ask for less, or leave `rate` away");
            self.findings.error(table, flaw);
        }
        let burst_us = per_us * u128::from(burst) / u128::from(requests);
        if burst_us > LONGEST.as_micros() {
            let flaw = Flaw::new(
                "the burst is more than the rate gives in a day",
                "write a smaller `burst`, or leave it away",
            );
            self.findings.error(table, flaw);
        }
        let (requests, burst) = (NonZeroU32::new(requests)?, NonZeroU32::new(burst)?);
        Some(RateSpec { requests, per: per.value, burst, by: by.value })
    }
}

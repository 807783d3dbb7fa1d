//! Checks of the tables that say when much is down at once, and how it comes back.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::{Check, Key, Origin, Setting};
use crate::config::file::{self, DurationText, PercentText, Scalar, Table};
use crate::config::findings::Flaw;
use crate::config::units;
use crate::logic::outcome::Class;
use crate::logic::topology::{Correlate, Detect, Evict, PROBES_PER_SECOND, Recover};
use crate::logic::window;

const PER_SECOND: RangeInclusive<u32> = 1..=1_000_000;
const SHARE: RangeInclusive<u32> = 1..=100;
const SHARE_OR_NONE: RangeInclusive<u32> = 0..=100;
const ENDPOINTS: RangeInclusive<u32> = 0..=1_000_000;

impl Check<'_> {
    pub(super) fn probes_per_second(&mut self, probes: Option<Table<file::ProbeBudget>>) -> u32 {
        let Table { value: given, span: table } = probes.unwrap_or_default();
        let key = Key::new(&table, "per_second", &given.per_second);
        self.whole(&key, &PER_SECOND, PROBES_PER_SECOND)
    }

    pub(super) fn correlate(&mut self, correlate: Option<Table<file::Correlate>>) -> Correlate {
        let Table { value: given, span: table } = correlate.unwrap_or_default();
        let default = Correlate::default();
        let key = Key::new(&table, "quorum_percent", &given.quorum_percent);
        let quorum = self.setting(&key, default.quorum_percent, quorum);
        let key = Key::new(&table, "window", &given.window);
        let window = self.duration(&key, default.window).value;
        let key = Key::new(&table, "return_percent", &given.return_percent);
        let return_percent = self.whole(&key, &SHARE, default.return_percent);
        Correlate { quorum_percent: quorum.value, window, return_percent }
    }

    pub(super) fn recover(&mut self, recover: Option<Table<file::Recover>>) -> Recover {
        let Table { value: given, span: table } = recover.unwrap_or_default();
        let default = Recover::default();
        let key = Key::new(&table, "hold_down", &given.hold_down);
        let hold_down = self.duration_or_none(&key, default.hold_down);
        let key = Key::new(&table, "hold_down_max", &given.hold_down_max);
        let hold_down_max = self.duration(&key, default.hold_down_max);
        let key = Key::new(&table, "ramp", &given.ramp);
        let ramp = self.duration_or_none(&key, default.ramp).value;
        self.not_longer(("hold_down", &hold_down), ("hold_down_max", &hold_down_max));
        Recover { hold_down: hold_down.value, hold_down_max: hold_down_max.value, ramp }
    }

    pub(super) fn evict(&mut self, evict: Option<Table<file::Evict>>) -> Evict {
        let Table { value: given, span: table } = evict.unwrap_or_default();
        let default = Evict::default();
        let key = Key::new(&table, "endpoints", &given.endpoints);
        let endpoints = self.whole(&key, &ENDPOINTS, default.endpoints);
        let key = Key::new(&table, "percent", &given.percent);
        let percent = self.whole(&key, &SHARE_OR_NONE, default.percent);
        let key = Key::new(&table, "zone_percent", &given.zone_percent);
        let zone_percent = self.whole(&key, &SHARE_OR_NONE, default.zone_percent);
        let key = Key::new(&table, "panic_percent", &given.panic_percent);
        let panic_percent = self.whole(&key, &SHARE_OR_NONE, default.panic_percent);
        Evict { endpoints, percent, zone_percent, panic_percent }
    }

    /// The target of a detection window, which cannot be shorter than the window itself. `parts` are
    /// the settings that `detect` was made of.
    pub(super) fn target(
        &mut self,
        key: &Key<'_, DurationText>,
        detect: &Detect,
        parts: &[&Setting<Duration>],
    ) -> Option<Duration> {
        let span = &key.given.as_ref()?.span;
        let target = self.duration(key, detect.interval);
        if target.origin == Origin::Unusable {
            return None;
        }
        let worst = window::bounds(Class::Silent, detect, detect.timeout).worst;
        let is_known = parts.iter().all(|part| part.origin != Origin::Unusable);
        if is_known && target.value < worst {
            let least = units::duration_text(worst);
            let flaw = Flaw::new(
                format!(
                    "`target` ({}) is shorter than the worst case of this window ({least})",
                    target.shown()
                ),
                format!(
                    "set `target` to \"{least}\" or more, or shorten `interval` or `timeout`: the \
                     worst case is interval + timeout + (down_after − 1) · max(fast_interval, \
                     timeout)"
                ),
            );
            self.findings.error(span, flaw);
        }
        Some(target.value)
    }
}

/// Reads `60` or `"off"`.
fn quorum(given: &PercentText) -> Result<u32, Flaw> {
    let mend = "write a whole number from 1 to 100, or \"off\"";
    match &given.0 {
        Scalar::Text(text) if text.trim() == "off" => Ok(Correlate::OFF_PERCENT),
        Scalar::Text(text) => {
            let number: Option<u32> = text.trim().trim_end_matches('%').trim().parse().ok();
            Err(match number.filter(|number| SHARE.contains(number)) {
                Some(number) => Flaw::new(
                    "`quorum_percent` is a number, without quotes",
                    format!("write it as {number}"),
                ),
                None => Flaw::new(format!("`{text}` is not a percentage"), mend),
            })
        }
        Scalar::Whole(number) => {
            let fitting = u32::try_from(*number).ok().filter(|number| SHARE.contains(number));
            fitting.ok_or_else(|| {
                Flaw::new(format!("`quorum_percent` must be from 1 to 100, not {number}"), mend)
            })
        }
    }
}

//! Checks of the tables for correlated failures, recovery, eviction and probe budgets.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::validator::{SettingKey, SettingOrigin, ValidatedSetting, Validator};
use crate::config::diagnostics::Problem;
use crate::config::file::{self, DurationText, LocatedTable, PercentText, Scalar};
use crate::config::units;
use crate::logic::model::outcome::FailureClass;
use crate::logic::model::topology::{
    CorrelationSpec, DetectionSpec, EvictionSpec, PROBES_PER_SECOND, RecoverySpec,
};
use crate::logic::probing::detection_window;

const PROBES_PER_SECOND_RANGE: RangeInclusive<u32> = 1..=1_000_000;
const PERCENT: RangeInclusive<u32> = 1..=100;
const PERCENT_OR_ZERO: RangeInclusive<u32> = 0..=100;
const ENDPOINTS_RANGE: RangeInclusive<u32> = 0..=1_000_000;

impl Validator<'_> {
    pub(super) fn probes_per_second(
        &mut self,
        probes: Option<LocatedTable<file::ProbeBudget>>,
    ) -> u32 {
        let LocatedTable { value: given, span: table } = probes.unwrap_or_default();
        let key = SettingKey::new(&table, "per_second", &given.per_second);
        self.integer(&key, &PROBES_PER_SECOND_RANGE, PROBES_PER_SECOND)
    }

    pub(super) fn correlate(
        &mut self,
        correlate: Option<LocatedTable<file::Correlate>>,
    ) -> CorrelationSpec {
        let LocatedTable { value: given, span: table } = correlate.unwrap_or_default();
        let default = CorrelationSpec::default();
        let key = SettingKey::new(&table, "quorum_percent", &given.quorum_percent);
        let quorum = self.setting(&key, default.quorum_percent, parse_quorum);
        let key = SettingKey::new(&table, "window", &given.window);
        let window = self.duration(&key, default.window).value;
        let key = SettingKey::new(&table, "return_percent", &given.return_percent);
        let return_percent = self.integer(&key, &PERCENT, default.return_percent);
        CorrelationSpec { quorum_percent: quorum.value, window, return_percent }
    }

    pub(super) fn recover(&mut self, recover: Option<LocatedTable<file::Recover>>) -> RecoverySpec {
        let LocatedTable { value: given, span: table } = recover.unwrap_or_default();
        let default = RecoverySpec::default();
        let key = SettingKey::new(&table, "hold_down", &given.hold_down);
        let hold_down = self.zeroable_duration_setting(&key, default.hold_down);
        let key = SettingKey::new(&table, "hold_down_max", &given.hold_down_max);
        let hold_down_max = self.duration(&key, default.hold_down_max);
        let key = SettingKey::new(&table, "ramp", &given.ramp);
        let ramp = self.zeroable_duration_setting(&key, default.ramp).value;
        self.check_not_longer(("hold_down", &hold_down), ("hold_down_max", &hold_down_max));
        RecoverySpec { hold_down: hold_down.value, hold_down_max: hold_down_max.value, ramp }
    }

    pub(super) fn evict(&mut self, evict: Option<LocatedTable<file::Evict>>) -> EvictionSpec {
        let LocatedTable { value: given, span: table } = evict.unwrap_or_default();
        let default = EvictionSpec::default();
        let key = SettingKey::new(&table, "endpoints", &given.endpoints);
        let endpoints = self.integer(&key, &ENDPOINTS_RANGE, default.max_down_endpoints);
        let key = SettingKey::new(&table, "percent", &given.percent);
        let percent = self.integer(&key, &PERCENT_OR_ZERO, default.max_down_percent);
        let key = SettingKey::new(&table, "zone_percent", &given.zone_percent);
        let zone_percent = self.integer(&key, &PERCENT_OR_ZERO, default.max_zone_down_percent);
        let key = SettingKey::new(&table, "panic_percent", &given.panic_percent);
        let panic_percent = self.integer(&key, &PERCENT_OR_ZERO, default.panic_percent);
        EvictionSpec {
            max_down_endpoints: endpoints,
            max_down_percent: percent,
            max_zone_down_percent: zone_percent,
            panic_percent,
        }
    }

    /// The target of a detection window, which cannot be shorter than the worst case of the window.
    /// `settings` are the durations in `detect`.
    pub(super) fn detection_target(
        &mut self,
        key: &SettingKey<'_, DurationText>,
        detect: &DetectionSpec,
        settings: &[&ValidatedSetting<Duration>],
    ) -> Option<Duration> {
        let span = &key.given.as_ref()?.span;
        let target = self.duration(key, detect.interval);
        if target.origin == SettingOrigin::Invalid {
            return None;
        }
        let worst_case =
            detection_window::detection_bounds(FailureClass::Silent, detect, detect.timeout).worst;
        let is_known = settings.iter().all(|part| part.origin != SettingOrigin::Invalid);
        if is_known && target.value < worst_case {
            let least = units::format_duration(worst_case);
            let problem = Problem::new(
                format!(
                    "`target` ({}) is shorter than the worst case of this window ({least})",
                    target.display_text()
                ),
                format!(
                    "set `target` to \"{least}\" or more, or shorten `interval` or `timeout`: the \
                     worst case is interval + timeout + (down_after − 1) · max(fast_interval, \
                     timeout)"
                ),
            );
            self.diagnostics.error(span, problem);
        }
        Some(target.value)
    }
}

/// Parses `60` or `"off"`.
fn parse_quorum(given: &PercentText) -> Result<u32, Problem> {
    let help = "write a whole number from 1 to 100, or \"off\"";
    match &given.0 {
        Scalar::Text(text) if text.trim() == "off" => Ok(CorrelationSpec::OFF_PERCENT),
        Scalar::Text(text) => {
            let number: Option<u32> = text.trim().trim_end_matches('%').trim().parse().ok();
            Err(match number.filter(|number| PERCENT.contains(number)) {
                Some(number) => Problem::new(
                    "`quorum_percent` is a number, without quotes",
                    format!("write it as {number}"),
                ),
                None => Problem::new(format!("`{text}` is not a percentage"), help),
            })
        }
        Scalar::Integer(number) => {
            let in_range = u32::try_from(*number).ok().filter(|number| PERCENT.contains(number));
            in_range.ok_or_else(|| {
                Problem::new(format!("`quorum_percent` must be from 1 to 100, not {number}"), help)
            })
        }
    }
}

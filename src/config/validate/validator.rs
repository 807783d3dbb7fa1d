//! Shared checks of single values, with their bounds and defaults.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use crate::config::address;
use crate::config::deserialize::UnreadKeys;
use crate::config::diagnostics::{Diagnostics, Problem};
use crate::config::file::{DeadlineText, DurationText, Located, Scalar, SizeText, WholeNumber};
use crate::config::units;
use crate::logic::discovery::DiscoveryEntry;
use crate::logic::model::network::Network;

/// Shortest duration: timers count in milliseconds.
pub(super) const MIN_DURATION: Duration = Duration::from_millis(1);

/// Longest duration: beyond any use, and small enough that additions to an instant never overflow.
pub(super) const MAX_DURATION: Duration = Duration::from_hours(7 * 24);

/// The example in the help text where a duration has no default.
const EXAMPLE_DURATION: Duration = Duration::from_secs(30);

/// The state that all checks share.
pub(super) struct Validator<'a> {
    pub(super) diagnostics: &'a mut Diagnostics,
    pub(super) unread: &'a UnreadKeys,
    /// The directory at which relative paths start.
    pub(super) base_dir: &'a Path,
    /// The names of endpoints, in the order of the file.
    pub(super) dns_entries: Vec<DiscoveryEntry>,
    /// The addresses of this instance's listeners for clients and for operators.
    pub(super) own_listeners: Vec<(SocketAddr, &'static str)>,
}

/// A valid value, and its origin.
#[derive(Clone, Debug)]
pub(super) struct ValidatedSetting<T> {
    pub(super) value: T,
    pub(super) origin: SettingOrigin,
}

/// The origin of a [`ValidatedSetting`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SettingOrigin {
    /// The file has no value.
    Default,
    /// The file has the value at this place.
    Given(Range<usize>),
    /// The file has an invalid value, which has been reported. The setting has the default instead,
    /// and comparisons with it must not be reported.
    Invalid,
}

impl<T> ValidatedSetting<T> {
    /// The places to report when this setting conflicts with `other`; `None` if no error must be
    /// reported.
    pub(super) fn conflicting_spans<U>(
        &self,
        other: &ValidatedSetting<U>,
    ) -> Option<(Range<usize>, Option<Range<usize>>)> {
        match (&self.origin, &other.origin) {
            (SettingOrigin::Invalid, _)
            | (_, SettingOrigin::Invalid)
            | (SettingOrigin::Default, SettingOrigin::Default) => None,
            (SettingOrigin::Given(own), SettingOrigin::Given(others)) => {
                Some((own.clone(), Some(others.clone())))
            }
            (SettingOrigin::Given(only), SettingOrigin::Default)
            | (SettingOrigin::Default, SettingOrigin::Given(only)) => Some((only.clone(), None)),
        }
    }
}

impl ValidatedSetting<Duration> {
    /// The value as the file has it, marked where it is the default.
    pub(super) fn display_text(&self) -> String {
        let text = units::format_duration(self.value);
        match self.origin {
            SettingOrigin::Given(_) | SettingOrigin::Invalid => text,
            SettingOrigin::Default => format!("{text}, the default"),
        }
    }
}

/// A key of a table in the file, with its value.
pub(super) struct SettingKey<'k, T> {
    pub(super) table: &'k Range<usize>,
    pub(super) name: &'static str,
    /// The value, if it could be read.
    pub(super) given: &'k Option<Located<T>>,
}

impl<'k, T> SettingKey<'k, T> {
    pub(super) fn new(
        table: &'k Range<usize>,
        name: &'static str,
        given: &'k Option<Located<T>>,
    ) -> Self {
        Self { table, name, given }
    }
}

impl Validator<'_> {
    /// The value of `key`, converted by `read`; `default` if it is absent or invalid.
    pub(super) fn setting<T, U>(
        &mut self,
        key: &SettingKey<'_, T>,
        default: U,
        read: impl FnOnce(&T) -> Result<U, Problem>,
    ) -> ValidatedSetting<U> {
        let Some(given) = key.given else {
            let is_unread = self.unread.has_key(key.table, key.name);
            let origin = if is_unread { SettingOrigin::Invalid } else { SettingOrigin::Default };
            return ValidatedSetting { value: default, origin };
        };
        match read(&given.value) {
            Ok(value) => {
                ValidatedSetting { value, origin: SettingOrigin::Given(given.span.clone()) }
            }
            Err(problem) => {
                self.diagnostics.error(&given.span, problem);
                ValidatedSetting { value: default, origin: SettingOrigin::Invalid }
            }
        }
    }

    /// A duration from [`MIN_DURATION`] to [`MAX_DURATION`].
    pub(super) fn duration(
        &mut self,
        key: &SettingKey<'_, DurationText>,
        default: Duration,
    ) -> ValidatedSetting<Duration> {
        self.setting(key, default, |text| {
            parse_bounded_duration(MIN_DURATION, key.name, default, &text.0)
        })
    }

    /// A duration from [`MIN_DURATION`] to [`MAX_DURATION`], or `unlimited` (`None`), the default.
    pub(super) fn duration_or_unlimited(
        &mut self,
        key: &SettingKey<'_, DeadlineText>,
    ) -> Option<Duration> {
        let read = |text: &DeadlineText| match &text.0 {
            Scalar::Text(word) if word.trim() == "unlimited" => Ok(None),
            given => {
                parse_bounded_duration(MIN_DURATION, key.name, EXAMPLE_DURATION, given).map(Some)
            }
        };
        self.setting(key, None, read).value
    }

    /// A duration from zero to [`MAX_DURATION`].
    pub(super) fn zeroable_duration_setting(
        &mut self,
        key: &SettingKey<'_, DurationText>,
        default: Duration,
    ) -> ValidatedSetting<Duration> {
        let read = |text: &DurationText| {
            parse_bounded_duration(Duration::ZERO, key.name, default, &text.0)
        };
        self.setting(key, default, read)
    }

    /// The value of [`Self::zeroable_duration_setting`].
    pub(super) fn zeroable_duration(
        &mut self,
        key: &SettingKey<'_, DurationText>,
        default: Duration,
    ) -> Duration {
        self.zeroable_duration_setting(key, default).value
    }

    /// A whole number within `bounds`.
    pub(super) fn integer<N>(
        &mut self,
        key: &SettingKey<'_, WholeNumber>,
        bounds: &RangeInclusive<N>,
        default: N,
    ) -> N
    where
        N: TryFrom<i64> + PartialOrd + Display,
    {
        self.setting(key, default, |WholeNumber(scalar)| parse_integer(scalar, key.name, bounds))
            .value
    }

    /// A size within `bounds`, in bytes.
    pub(super) fn size(
        &mut self,
        key: &SettingKey<'_, SizeText>,
        bounds: &RangeInclusive<usize>,
        default: usize,
    ) -> usize {
        self.setting(key, default, |SizeText(scalar)| {
            let bytes = units::parse_size(scalar)?;
            usize::try_from(bytes).ok().filter(|n| bounds.contains(n)).ok_or_else(|| {
                let min = units::format_size(*bounds.start() as u64);
                let max = units::format_size(*bounds.end() as u64);
                Problem::new(
                    format!("`{}` must be from {min} to {max}", key.name),
                    format!("write a size such as \"{}\"", units::format_size(default as u64)),
                )
            })
        })
        .value
    }

    pub(super) fn bool_or(&mut self, given: &Option<Located<bool>>, default: bool) -> bool {
        given.as_ref().map_or(default, |given| given.value)
    }

    /// Reports that the required `key` is missing in `table`, unless it was there and unreadable.
    pub(super) fn report_missing(&mut self, table: &Range<usize>, key: &str, problem: Problem) {
        if !self.unread.has_key(table, key) {
            self.diagnostics.error(table, problem);
        }
    }

    /// Reports `inner` if it is longer than `outer`.
    pub(super) fn check_not_longer(
        &mut self,
        (inner_name, inner): (&str, &ValidatedSetting<Duration>),
        (outer_name, outer): (&str, &ValidatedSetting<Duration>),
    ) {
        if inner.value <= outer.value {
            return;
        }
        let Some((span, second)) = inner.conflicting_spans(outer) else {
            return;
        };
        let problem = Problem::new(
            format!(
                "`{inner_name}` ({}) is longer than `{outer_name}` ({})",
                inner.display_text(),
                outer.display_text()
            ),
            format!(
                "set `{inner_name}` to \"{}\" or less, or `{outer_name}` to \"{}\" or more",
                units::format_duration(outer.value),
                units::format_duration(inner.value)
            ),
        );
        let finding = self.diagnostics.error(&span, problem);
        if let Some(second) = second {
            finding.add_related(&second, "longer than this");
        }
    }

    /// The valid networks of a list, each with its place; reports invalid ones, and the first
    /// beyond `max_count`.
    pub(super) fn networks<'g>(
        &mut self,
        given: &'g [Located<String>],
        max_count: usize,
    ) -> Vec<(Network, &'g Range<usize>)> {
        if let Some(beyond) = given.get(max_count) {
            let message = format!("there are more than {max_count} networks");
            self.diagnostics.error(&beyond.span, Problem::new(message, "write larger ones"));
        }
        let mut networks = Vec::new();
        for Located { value, span } in given.iter().take(max_count) {
            match address::parse_network(value) {
                Ok(network) => networks.push((network, span)),
                Err(problem) => {
                    self.diagnostics.error(span, problem);
                }
            }
        }
        networks
    }

    /// Adds `value` to `seen`; if it is there already, reports both places and returns false.
    pub(super) fn is_unique<V: Eq + Hash>(
        &mut self,
        seen: &mut HashMap<V, Range<usize>>,
        value: V,
        span: &Range<usize>,
        problem: Problem,
    ) -> bool {
        let Some(first) = seen.get(&value) else {
            seen.insert(value, span.clone());
            return true;
        };
        self.diagnostics.error(span, problem).add_related(first, "first here");
        false
    }
}

fn parse_bounded_duration(
    min: Duration,
    name: &str,
    default: Duration,
    given: &Scalar,
) -> Result<Duration, Problem> {
    let duration = units::parse_duration(given)?;
    if (min..=MAX_DURATION).contains(&duration) {
        return Ok(duration);
    }
    let message = if duration.is_zero() {
        format!("`{name}` cannot be zero")
    } else {
        let (min, max) = (units::format_duration(min), units::format_duration(MAX_DURATION));
        format!("`{name}` must be from {min} to {max}")
    };
    let example = units::format_duration(default);
    Err(Problem::new(message, format!("write a duration such as \"{example}\"")))
}

pub(super) fn parse_integer<N: TryFrom<i64> + PartialOrd + Display>(
    given: &Scalar,
    name: &str,
    bounds: &RangeInclusive<N>,
) -> Result<N, Problem> {
    let (min, max) = (bounds.start(), bounds.end());
    let help = format!("write a whole number from {min} to {max}");
    match given {
        Scalar::Text(text) => Err(match text.trim().parse::<i64>() {
            Ok(number) => Problem::new(
                format!("`{name}` is a number, without quotes"),
                format!("write it as {number}"),
            ),
            Err(_) => Problem::new(format!("`{text}` is not a whole number"), help),
        }),
        Scalar::Integer(number) => {
            N::try_from(*number).ok().filter(|number| bounds.contains(number)).ok_or_else(|| {
                Problem::new(format!("`{name}` must be from {min} to {max}, not {number}"), help)
            })
        }
    }
}

//! The tools of the checks: one value at a time, with its bounds and its default.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use crate::config::file::{DeadlineText, DurationText, Located, Scalar, SizeText, Whole};
use crate::config::findings::{Findings, Flaw};
use crate::config::read::Gaps;
use crate::config::units;
use crate::logic::discovery::Entry;

/// Timers count in milliseconds.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// Far beyond any use, and far from what clocks cannot add.
pub(super) const LONGEST: Duration = Duration::from_hours(7 * 24);

/// What is shown where a duration has no default.
const EXAMPLE: Duration = Duration::from_secs(30);

/// What the checks share: where to put findings, and what could not be read.
pub(super) struct Check<'a> {
    pub(super) findings: &'a mut Findings,
    pub(super) gaps: &'a Gaps,
    /// Where relative paths of files begin.
    pub(super) base: &'a Path,
    /// Names that lead to endpoints, as they are come upon.
    pub(super) names: Vec<Entry>,
}

/// A value that is always usable, and whether it may be compared with others.
#[derive(Clone, Debug)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

/// Where a [`Setting`] comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The file says nothing.
    Default,
    /// The file says so here.
    Given(Range<usize>),
    /// The file says something that cannot be used, which has been reported; the value is the
    /// default, and nothing should be concluded from it.
    Unusable,
}

impl<T> Setting<T> {
    /// Where to point when this and `other` do not fit, if that can be said at all.
    pub(super) fn clash<U>(
        &self,
        other: &Setting<U>,
    ) -> Option<(Range<usize>, Option<Range<usize>>)> {
        match (&self.origin, &other.origin) {
            (Origin::Unusable, _) | (_, Origin::Unusable) | (Origin::Default, Origin::Default) => {
                None
            }
            (Origin::Given(mine), Origin::Given(theirs)) => {
                Some((mine.clone(), Some(theirs.clone())))
            }
            (Origin::Given(only), Origin::Default) | (Origin::Default, Origin::Given(only)) => {
                Some((only.clone(), None))
            }
        }
    }
}

impl Setting<Duration> {
    /// The value as it is written in the file, with a word where the file does not say it.
    pub(super) fn shown(&self) -> String {
        let text = units::duration_text(self.value);
        match self.origin {
            Origin::Given(_) | Origin::Unusable => text,
            Origin::Default => format!("{text}, the default"),
        }
    }
}

/// A key of a table of the file, with what was read for it.
pub(super) struct Key<'k, T> {
    /// The table's span.
    pub(super) table: &'k Range<usize>,
    /// The key.
    pub(super) name: &'static str,
    /// The value, where one was read.
    pub(super) given: &'k Option<Located<T>>,
}

impl<'k, T> Key<'k, T> {
    pub(super) fn new(
        table: &'k Range<usize>,
        name: &'static str,
        given: &'k Option<Located<T>>,
    ) -> Self {
        Self { table, name, given }
    }
}

impl Check<'_> {
    /// `key` through `read`, or `default`.
    pub(super) fn setting<T, U>(
        &mut self,
        key: &Key<'_, T>,
        default: U,
        read: impl FnOnce(&T) -> Result<U, Flaw>,
    ) -> Setting<U> {
        let Some(given) = key.given else {
            let unread = self.gaps.has(key.table, key.name);
            let origin = if unread { Origin::Unusable } else { Origin::Default };
            return Setting { value: default, origin };
        };
        match read(&given.value) {
            Ok(value) => Setting { value, origin: Origin::Given(given.span.clone()) },
            Err(flaw) => {
                self.findings.error(&given.span, flaw);
                Setting { value: default, origin: Origin::Unusable }
            }
        }
    }

    /// A duration from [`SHORTEST`] to [`LONGEST`].
    pub(super) fn duration(
        &mut self,
        key: &Key<'_, DurationText>,
        default: Duration,
    ) -> Setting<Duration> {
        self.setting(key, default, |text| duration_from(SHORTEST, key.name, default, &text.0))
    }

    /// A duration from [`SHORTEST`] to [`LONGEST`], or `unlimited`, which is the default.
    pub(super) fn duration_or_unlimited(
        &mut self,
        key: &Key<'_, DeadlineText>,
    ) -> Option<Duration> {
        let read = |text: &DeadlineText| match &text.0 {
            Scalar::Text(word) if word.trim() == "unlimited" => Ok(None),
            given => duration_from(SHORTEST, key.name, EXAMPLE, given).map(Some),
        };
        self.setting(key, None, read).value
    }

    /// A duration from zero to [`LONGEST`].
    pub(super) fn duration_or_none(
        &mut self,
        key: &Key<'_, DurationText>,
        default: Duration,
    ) -> Setting<Duration> {
        let read = |text: &DurationText| duration_from(Duration::ZERO, key.name, default, &text.0);
        self.setting(key, default, read)
    }

    /// The value of such a duration.
    pub(super) fn duration_or_zero(
        &mut self,
        key: &Key<'_, DurationText>,
        default: Duration,
    ) -> Duration {
        self.duration_or_none(key, default).value
    }

    /// A whole number within `bounds`.
    pub(super) fn whole<N>(
        &mut self,
        key: &Key<'_, Whole>,
        bounds: &RangeInclusive<N>,
        default: N,
    ) -> N
    where
        N: TryFrom<i64> + PartialOrd + Display,
    {
        self.setting(key, default, |Whole(scalar)| whole_from(scalar, key.name, bounds)).value
    }

    /// A size within `bounds`, in bytes.
    pub(super) fn size(
        &mut self,
        key: &Key<'_, SizeText>,
        bounds: &RangeInclusive<usize>,
        default: usize,
    ) -> usize {
        self.setting(key, default, |SizeText(scalar)| {
            let bytes = units::size(scalar)?;
            usize::try_from(bytes).ok().filter(|n| bounds.contains(n)).ok_or_else(|| {
                let least = units::size_text(*bounds.start() as u64);
                let most = units::size_text(*bounds.end() as u64);
                Flaw::new(
                    format!("`{}` must be from {least} to {most}", key.name),
                    format!("write a size such as \"{}\"", units::size_text(default as u64)),
                )
            })
        })
        .value
    }

    /// `true` or `false`.
    pub(super) fn switch(&mut self, given: &Option<Located<bool>>, default: bool) -> bool {
        given.as_ref().map_or(default, |given| given.value)
    }

    /// Reports a required `key` that `table` neither has nor nearly has.
    pub(super) fn missing(&mut self, table: &Range<usize>, key: &str, flaw: Flaw) {
        if !self.gaps.has(table, key) {
            self.findings.error(table, flaw);
        }
    }

    /// Whether `value` is new among `seen`; if not, reports both places.
    pub(super) fn unique<V: Eq + Hash>(
        &mut self,
        seen: &mut HashMap<V, Range<usize>>,
        value: V,
        span: &Range<usize>,
        flaw: Flaw,
    ) -> bool {
        let Some(first) = seen.get(&value) else {
            seen.insert(value, span.clone());
            return true;
        };
        self.findings.error(span, flaw).also(first, "first here");
        false
    }
}

fn duration_from(
    least: Duration,
    name: &str,
    default: Duration,
    given: &Scalar,
) -> Result<Duration, Flaw> {
    let duration = units::duration(given)?;
    if (least..=LONGEST).contains(&duration) {
        return Ok(duration);
    }
    let message = if duration.is_zero() {
        format!("`{name}` cannot be zero")
    } else {
        let (least, most) = (units::duration_text(least), units::duration_text(LONGEST));
        format!("`{name}` must be from {least} to {most}")
    };
    let example = units::duration_text(default);
    Err(Flaw::new(message, format!("write a duration such as \"{example}\"")))
}

pub(super) fn whole_from<N: TryFrom<i64> + PartialOrd + Display>(
    given: &Scalar,
    name: &str,
    bounds: &RangeInclusive<N>,
) -> Result<N, Flaw> {
    let (least, most) = (bounds.start(), bounds.end());
    let mend = format!("write a whole number from {least} to {most}");
    match given {
        Scalar::Text(text) => Err(match text.trim().parse::<i64>() {
            Ok(number) => Flaw::new(
                format!("`{name}` is a number, without quotes"),
                format!("write it as {number}"),
            ),
            Err(_) => Flaw::new(format!("`{text}` is not a whole number"), mend),
        }),
        Scalar::Whole(number) => {
            N::try_from(*number).ok().filter(|number| bounds.contains(number)).ok_or_else(|| {
                Flaw::new(format!("`{name}` must be from {least} to {most}, not {number}"), mend)
            })
        }
    }
}

//! Durations, sizes and statuses: text to value, or what is wrong and how to write it.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::fmt::friendly::{Spacing, SpanParser, SpanPrinter};

use super::file::Scalar;
use super::findings::Flaw;

/// Size units, in the order in which they are offered.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Statuses that a probe may expect.
const STATUSES: RangeInclusive<u16> = 100..=599;

/// Reads `"250ms"`, `"1s"`, `"1m30s"`.
pub(super) fn duration(given: &Scalar) -> Result<Duration, Flaw> {
    let text = match given {
        Scalar::Whole(number) => return Err(unitless(&number.to_string())),
        Scalar::Text(text) => text.trim(),
    };
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(unitless(text));
    }
    // The parser also takes "hours:minutes:seconds", which is too easily misread.
    let parsed = SpanParser::new().parse_duration(text).ok().filter(|_| !text.contains(':'));
    let parsed = parsed.ok_or_else(|| {
        Flaw::new(
            format!("`{text}` is not a duration"),
            "write it as \"500ms\", \"1s\" or \"1m30s\"; the units are h, m, s, ms, us",
        )
    })?;
    Duration::try_from(parsed).map_err(|_| {
        let positive = duration_text(parsed.unsigned_abs());
        Flaw::new("a duration cannot be negative", format!("write it as \"{positive}\""))
    })
}

/// Reads a duration that may also be in days: `"90d"`, `"36h"`.
pub(crate) fn age(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(days) = text.strip_suffix('d') {
        let days: u64 = days.trim().parse().ok()?;
        return Some(Duration::from_secs(days.checked_mul(24 * 60 * 60)?));
    }
    duration(&Scalar::Text(text.to_owned())).ok()
}

fn unitless(number: &str) -> Flaw {
    let number = number.trim_start_matches('-');
    Flaw::new("a duration needs its unit", format!("write it as \"{number}ms\" or \"{number}s\""))
}

/// A duration as it is written in the file.
pub(super) fn duration_text(duration: Duration) -> String {
    let signed = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    SpanPrinter::new().spacing(Spacing::None).duration_to_string(&signed)
}

/// Reads `"64KiB"`, `"10MB"`, `512`.
pub(super) fn size(given: &Scalar) -> Result<u64, Flaw> {
    let not_a_size = |shown: &str| {
        Flaw::new(
            format!("`{shown}` is not a size"),
            "write it as \"64KiB\", \"1MiB\" or \"10MB\", or as a whole number of bytes",
        )
    };
    let text = match given {
        Scalar::Whole(bytes) => {
            return u64::try_from(*bytes).map_err(|_| not_a_size(&bytes.to_string()));
        }
        Scalar::Text(text) => text.trim(),
    };
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = (&text[..digits_end], text[digits_end..].trim());
    let number: u64 = digits.parse().map_err(|_| not_a_size(text))?;
    if unit.is_empty() {
        return Err(Flaw::new(
            "a size in quotes needs its unit",
            format!("write it as \"{number}KiB\", or without quotes for bytes"),
        ));
    }
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))
    else {
        let units = SIZE_UNITS.map(|(name, _)| name).join(", ");
        return Err(Flaw::new(
            format!("`{unit}` is not a unit of size"),
            format!("write it as \"{number}KiB\"; the units are {units}"),
        ));
    };
    number
        .checked_mul(*factor)
        .ok_or_else(|| Flaw::new(format!("`{text}` is too large"), "write a smaller size"))
}

/// A size as it is written in the file, in the largest binary unit that divides it.
pub(super) fn size_text(bytes: u64) -> String {
    let (unit, factor) = SIZE_UNITS[..4]
        .iter()
        .rev()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(&SIZE_UNITS[0]);
    format!("{}{unit}", bytes / factor)
}

/// Reads `"200-299"`, `"200,204"`, `200`.
pub(super) fn statuses(given: &Scalar) -> Result<Vec<RangeInclusive<u16>>, Flaw> {
    match given {
        Scalar::Whole(number) => {
            let status = status(&number.to_string())?;
            Ok(vec![status..=status])
        }
        Scalar::Text(text) => text.split(',').map(status_range).collect(),
    }
}

fn status_range(text: &str) -> Result<RangeInclusive<u16>, Flaw> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (status(first)?, status(last)?);
    if first > last {
        return Err(Flaw::new(
            format!("the range {first}-{last} is empty"),
            format!("write it as \"{last}-{first}\""),
        ));
    }
    Ok(first..=last)
}

fn status(text: &str) -> Result<u16, Flaw> {
    let text = text.trim();
    text.parse().ok().filter(|status| STATUSES.contains(status)).ok_or_else(|| {
        Flaw::new(
            format!("`{text}` is not an HTTP status"),
            format!(
                "write statuses from {} to {}, such as \"200-299\" or \"200,204\"",
                STATUSES.start(),
                STATUSES.end()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        let millis = |text_: &str| duration(&text(text_)).map(|d| d.as_millis());
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("1s"), Ok(1_000));
        assert_eq!(millis("1.5s"), Ok(1_500));
        assert_eq!(millis("5m"), Ok(300_000));
        assert_eq!(millis("1m30s"), Ok(90_000));
        assert_eq!(millis(" 2 h "), Ok(7_200_000));
        assert_eq!(millis("0s"), Ok(0));
    }

    #[test]
    fn ages_may_be_in_days() {
        assert_eq!(age("90d"), Some(Duration::from_hours(90 * 24)));
        assert_eq!(age(" 36h "), Some(Duration::from_hours(36)));
        assert_eq!(
            (age("d"), age("1.5d"), age("90"), age("99999999999999999d")),
            (None, None, None, None)
        );
    }

    #[test]
    fn a_duration_that_cannot_be_used_says_how_to_write_it() {
        let flaw = |scalar: Scalar| duration(&scalar).unwrap_err();
        assert_eq!(flaw(Scalar::Whole(500)).mend, "write it as \"500ms\" or \"500s\"");
        assert_eq!(flaw(text("500")).message, "a duration needs its unit");
        assert_eq!(flaw(text("1.5")).mend, "write it as \"1.5ms\" or \"1.5s\"");
        assert_eq!(flaw(Scalar::Whole(-3)).mend, "write it as \"3ms\" or \"3s\"");
        assert_eq!(flaw(text("-2s")).message, "a duration cannot be negative");
        assert_eq!(flaw(text("-2s")).mend, "write it as \"2s\"");
        assert_eq!(flaw(text("5 parsecs")).message, "`5 parsecs` is not a duration");
        assert_eq!(flaw(text("00:00:05")).message, "`00:00:05` is not a duration");
        assert_eq!(flaw(text("")).message, "`` is not a duration");
    }

    #[test]
    fn sizes_are_read_with_their_unit_or_as_bytes() {
        assert_eq!(size(&text("64KiB")), Ok(65_536));
        assert_eq!(size(&text("1 MiB")), Ok(1 << 20));
        assert_eq!(size(&text("10MB")), Ok(10_000_000));
        assert_eq!(size(&text("7b")), Ok(7));
        assert_eq!(size(&Scalar::Whole(512)), Ok(512));
    }

    #[test]
    fn a_size_that_cannot_be_used_says_how_to_write_it() {
        let flaw = |scalar: Scalar| size(&scalar).unwrap_err();
        assert!(flaw(text("64k")).mend.starts_with("write it as \"64KiB\""));
        assert_eq!(flaw(text("64")).message, "a size in quotes needs its unit");
        assert_eq!(flaw(text("big")).message, "`big` is not a size");
        assert_eq!(flaw(text("1.5MiB")).message, "`.5MiB` is not a unit of size");
        assert_eq!(flaw(Scalar::Whole(-1)).message, "`-1` is not a size");
        assert_eq!(flaw(text("18446744073709551615GiB")).mend, "write a smaller size");
    }

    #[test]
    fn statuses_are_numbers_and_ranges() {
        assert_eq!(statuses(&Scalar::Whole(204)), Ok(vec![204..=204]));
        assert_eq!(statuses(&text("200-299, 304")), Ok(vec![200..=299, 304..=304]));
        let flaw = |scalar: Scalar| statuses(&scalar).unwrap_err();
        assert_eq!(flaw(text("299-200")).mend, "write it as \"200-299\"");
        assert_eq!(flaw(text("2xx")).message, "`2xx` is not an HTTP status");
        assert_eq!(flaw(text("200,")).message, "`` is not an HTTP status");
        assert_eq!(flaw(Scalar::Whole(99)).message, "`99` is not an HTTP status");
    }

    proptest! {
        #[test]
        fn durations_round_trip(millis in 0_u64..1 << 40) {
            let given = Duration::from_millis(millis);
            prop_assert_eq!(duration(&text(&duration_text(given))), Ok(given));
        }

        #[test]
        fn sizes_round_trip(bytes: u64) {
            prop_assert_eq!(size(&text(&size_text(bytes))), Ok(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(any in ".*") {
            let _ = (duration(&text(&any)), size(&text(&any)), statuses(&text(&any)));
        }
    }
}

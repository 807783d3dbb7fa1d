//! Parsers of durations, sizes and statuses; their errors explain how to write the value.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::fmt::friendly::{Spacing, SpanParser, SpanPrinter};

use super::diagnostics::Problem;
use super::file::Scalar;

/// Units of size, in the order of help texts.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Valid statuses; a probe may expect interim ones too.
const STATUS_RANGE: RangeInclusive<u16> = 100..=599;

/// Parses `"250ms"`, `"1s"`, `"1m30s"`.
pub(super) fn parse_duration(given: &Scalar) -> Result<Duration, Problem> {
    let text = match given {
        Scalar::Integer(number) => return Err(missing_unit(&number.to_string())),
        Scalar::Text(text) => text.trim(),
    };
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(missing_unit(text));
    }
    // The parser also accepts "hours:minutes:seconds", which is easily misread.
    let parsed = SpanParser::new().parse_duration(text).ok().filter(|_| !text.contains(':'));
    let parsed = parsed.ok_or_else(|| {
        Problem::new(
            format!("`{text}` is not a duration"),
            "write it as \"500ms\", \"1s\" or \"1m30s\"; the units are h, m, s, ms, us",
        )
    })?;
    Duration::try_from(parsed).map_err(|_| {
        let positive = format_duration(parsed.unsigned_abs());
        Problem::new("a duration cannot be negative", format!("write it as \"{positive}\""))
    })
}

/// Parses a duration that may also be in days: `"90d"`, `"36h"`.
pub(crate) fn parse_age(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(days) = text.strip_suffix('d') {
        let days: u64 = days.trim().parse().ok()?;
        return Some(Duration::from_secs(days.checked_mul(24 * 60 * 60)?));
    }
    parse_duration(&Scalar::Text(text.to_owned())).ok()
}

fn missing_unit(number: &str) -> Problem {
    let number = number.trim_start_matches('-');
    Problem::new(
        "a duration needs its unit",
        format!("write it as \"{number}ms\" or \"{number}s\""),
    )
}

/// Formats a duration as the file has it.
pub(crate) fn format_duration(duration: Duration) -> String {
    let signed = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    SpanPrinter::new().spacing(Spacing::None).duration_to_string(&signed)
}

/// Parses `"64KiB"`, `"10MB"`, `512`; returns bytes.
pub(super) fn parse_size(given: &Scalar) -> Result<u64, Problem> {
    let size_problem = |shown: &str| {
        Problem::new(
            format!("`{shown}` is not a size"),
            "write it as \"64KiB\", \"1MiB\" or \"10MB\", or as a whole number of bytes",
        )
    };
    let text = match given {
        Scalar::Integer(bytes) => {
            return u64::try_from(*bytes).map_err(|_| size_problem(&bytes.to_string()));
        }
        Scalar::Text(text) => text.trim(),
    };
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = (&text[..digits_end], text[digits_end..].trim());
    let number: u64 = digits.parse().map_err(|_| size_problem(text))?;
    if unit.is_empty() {
        return Err(Problem::new(
            "a size in quotes needs its unit",
            format!("write it as \"{number}KiB\", or without quotes for bytes"),
        ));
    }
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))
    else {
        let units = SIZE_UNITS.map(|(name, _)| name).join(", ");
        return Err(Problem::new(
            format!("`{unit}` is not a unit of size"),
            format!("write it as \"{number}KiB\"; the units are {units}"),
        ));
    };
    number
        .checked_mul(*factor)
        .ok_or_else(|| Problem::new(format!("`{text}` is too large"), "write a smaller size"))
}

/// Formats a size as the file has it, in the largest binary unit that divides it.
pub(super) fn format_size(bytes: u64) -> String {
    let (unit, factor) = SIZE_UNITS[..4]
        .iter()
        .rev()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(&SIZE_UNITS[0]);
    format!("{}{unit}", bytes / factor)
}

/// Parses `"200-299"`, `"200,204"`, `200`.
pub(super) fn parse_statuses(given: &Scalar) -> Result<Vec<RangeInclusive<u16>>, Problem> {
    match given {
        Scalar::Integer(number) => {
            let status = parse_status(&number.to_string())?;
            Ok(vec![status..=status])
        }
        Scalar::Text(text) => text.split(',').map(parse_status_range).collect(),
    }
}

fn parse_status_range(text: &str) -> Result<RangeInclusive<u16>, Problem> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_status(first)?, parse_status(last)?);
    if first > last {
        return Err(Problem::new(
            format!("the range {first}-{last} is empty"),
            format!("write it as \"{last}-{first}\""),
        ));
    }
    Ok(first..=last)
}

fn parse_status(text: &str) -> Result<u16, Problem> {
    let text = text.trim();
    text.parse().ok().filter(|status| STATUS_RANGE.contains(status)).ok_or_else(|| {
        Problem::new(
            format!("`{text}` is not an HTTP status"),
            format!(
                "write statuses from {} to {}, such as \"200-299\" or \"200,204\"",
                STATUS_RANGE.start(),
                STATUS_RANGE.end()
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
    fn duration_with_unit_is_parsed() {
        let millis = |text_: &str| parse_duration(&text(text_)).map(|d| d.as_millis());
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("1s"), Ok(1_000));
        assert_eq!(millis("1.5s"), Ok(1_500));
        assert_eq!(millis("5m"), Ok(300_000));
        assert_eq!(millis("1m30s"), Ok(90_000));
        assert_eq!(millis(" 2 h "), Ok(7_200_000));
        assert_eq!(millis("0s"), Ok(0));
    }

    #[test]
    fn age_in_days_is_parsed() {
        assert_eq!(parse_age("90d"), Some(Duration::from_hours(90 * 24)));
        assert_eq!(parse_age(" 36h "), Some(Duration::from_hours(36)));
        assert_eq!(
            (parse_age("d"), parse_age("1.5d"), parse_age("90"), parse_age("99999999999999999d")),
            (None, None, None, None)
        );
    }

    #[test]
    fn bad_duration_explains_the_syntax() {
        let problem_for = |scalar: Scalar| parse_duration(&scalar).unwrap_err();
        assert_eq!(problem_for(Scalar::Integer(500)).help, "write it as \"500ms\" or \"500s\"");
        assert_eq!(problem_for(text("500")).message, "a duration needs its unit");
        assert_eq!(problem_for(text("1.5")).help, "write it as \"1.5ms\" or \"1.5s\"");
        assert_eq!(problem_for(Scalar::Integer(-3)).help, "write it as \"3ms\" or \"3s\"");
        assert_eq!(problem_for(text("-2s")).message, "a duration cannot be negative");
        assert_eq!(problem_for(text("-2s")).help, "write it as \"2s\"");
        assert_eq!(problem_for(text("5 parsecs")).message, "`5 parsecs` is not a duration");
        assert_eq!(problem_for(text("00:00:05")).message, "`00:00:05` is not a duration");
        assert_eq!(problem_for(text("")).message, "`` is not a duration");
    }

    #[test]
    fn size_with_unit_or_plain_bytes_is_parsed() {
        assert_eq!(parse_size(&text("64KiB")), Ok(65_536));
        assert_eq!(parse_size(&text("1 MiB")), Ok(1 << 20));
        assert_eq!(parse_size(&text("10MB")), Ok(10_000_000));
        assert_eq!(parse_size(&text("7b")), Ok(7));
        assert_eq!(parse_size(&Scalar::Integer(512)), Ok(512));
    }

    #[test]
    fn bad_size_explains_the_syntax() {
        let problem_for = |scalar: Scalar| parse_size(&scalar).unwrap_err();
        assert!(problem_for(text("64k")).help.starts_with("write it as \"64KiB\""));
        assert_eq!(problem_for(text("64")).message, "a size in quotes needs its unit");
        assert_eq!(problem_for(text("big")).message, "`big` is not a size");
        assert_eq!(problem_for(text("1.5MiB")).message, "`.5MiB` is not a unit of size");
        assert_eq!(problem_for(Scalar::Integer(-1)).message, "`-1` is not a size");
        assert_eq!(problem_for(text("18446744073709551615GiB")).help, "write a smaller size");
    }

    #[test]
    fn statuses_are_parsed_as_numbers_and_ranges() {
        assert_eq!(parse_statuses(&Scalar::Integer(204)), Ok(vec![204..=204]));
        assert_eq!(parse_statuses(&text("200-299, 304")), Ok(vec![200..=299, 304..=304]));
        let problem_for = |scalar: Scalar| parse_statuses(&scalar).unwrap_err();
        assert_eq!(problem_for(text("299-200")).help, "write it as \"200-299\"");
        assert_eq!(problem_for(text("2xx")).message, "`2xx` is not an HTTP status");
        assert_eq!(problem_for(text("200,")).message, "`` is not an HTTP status");
        assert_eq!(problem_for(Scalar::Integer(99)).message, "`99` is not an HTTP status");
    }

    proptest! {
        #[test]
        fn durations_round_trip(millis in 0_u64..1 << 40) {
            let given = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&text(&format_duration(given))), Ok(given));
        }

        #[test]
        fn sizes_round_trip(bytes: u64) {
            prop_assert_eq!(parse_size(&text(&format_size(bytes))), Ok(bytes));
        }

        #[test]
        fn any_text_is_parsed_or_rejected_without_panic(any in ".*") {
            let _ = (parse_duration(&text(&any)), parse_size(&text(&any)), parse_statuses(&text(&any)));
        }
    }
}

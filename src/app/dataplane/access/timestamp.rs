//! Timestamps in UTC, written without a formatter.

use bytes::BytesMut;

/// Month names of the Common Log Format.
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const MS_PER_DAY: u64 = 24 * 60 * 60 * 1_000;

/// A time in UTC by its parts.
struct CivilTime {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    ms: u64,
}

impl CivilTime {
    /// The proleptic Gregorian calendar, after Howard Hinnant's `civil_from_days`.
    fn from_unix_ms(unix_ms: u64) -> Self {
        let (days, ms) = (unix_ms / MS_PER_DAY, unix_ms % MS_PER_DAY);
        // Years start in March here, so that the leap day is last.
        let z = days + 719_468;
        let (era, day_of_era) = (z / 146_097, z % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Self {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
            hour: ms / 3_600_000,
            minute: ms / 60_000 % 60,
            second: ms / 1_000 % 60,
            ms: ms % 1_000,
        }
    }
}

/// Writes `2026-11-25T22:44:25.123Z` (RFC 3339).
pub(super) fn write_rfc3339(out: &mut BytesMut, unix_ms: u64) {
    let civil = CivilTime::from_unix_ms(unix_ms);
    write_digits(out, civil.year, 4);
    for (separator, value) in [(b'-', civil.month), (b'-', civil.day), (b'T', civil.hour)] {
        out.extend_from_slice(&[separator]);
        write_digits(out, value, 2);
    }
    for value in [civil.minute, civil.second] {
        out.extend_from_slice(b":");
        write_digits(out, value, 2);
    }
    out.extend_from_slice(b".");
    write_digits(out, civil.ms, 3);
    out.extend_from_slice(b"Z");
}

/// Writes `25/Nov/2026:22:44:25 +0000`.
pub(super) fn write_common_log(out: &mut BytesMut, unix_ms: u64) {
    let civil = CivilTime::from_unix_ms(unix_ms);
    write_digits(out, civil.day, 2);
    out.extend_from_slice(b"/");
    let month = usize::try_from(civil.month - 1).unwrap_or(0);
    out.extend_from_slice(MONTHS.get(month).unwrap_or(&"Jan").as_bytes());
    out.extend_from_slice(b"/");
    write_digits(out, civil.year, 4);
    for value in [civil.hour, civil.minute, civil.second] {
        out.extend_from_slice(b":");
        write_digits(out, value, 2);
    }
    out.extend_from_slice(b" +0000");
}

/// Writes the last `width` digits of `value`, four at most.
fn write_digits(out: &mut BytesMut, value: u64, width: usize) {
    let mut text = [b'0'; 4];
    let mut rest = value;
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&text[text.len() - width..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn formatted(write: impl Fn(&mut BytesMut, u64), unix_ms: u64) -> String {
        let mut out = BytesMut::new();
        write(&mut out, unix_ms);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn epoch_and_leap_day_are_formatted() {
        assert_eq!(formatted(write_rfc3339, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(formatted(write_rfc3339, 951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(formatted(write_common_log, 951_827_696_789), "29/Feb/2000:12:34:56 +0000");
    }

    proptest! {
        #[test]
        fn formats_match_calendar_library(unix_ms in 0_i64..4_102_444_800_000) {
            let moment = jiff::Timestamp::from_millisecond(unix_ms).expect("in range");
            let unix_ms = unix_ms as u64;
            let expected = format!("{moment:.3}");
            prop_assert_eq!(formatted(write_rfc3339, unix_ms), expected);
            let zoned = moment.to_zoned(jiff::tz::TimeZone::UTC);
            let expected = zoned.strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
            prop_assert_eq!(formatted(write_common_log, unix_ms), expected);
        }
    }
}

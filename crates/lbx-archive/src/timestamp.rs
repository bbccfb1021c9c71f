//! The one time that an archive carries, in the format's own encoding. Reads no clock.

use std::fmt;

/// A DOS date and time as every header has it (4.4.6): local time without a zone, 2-second steps, years 1980 to
/// 2107. A stranger's may be one that no calendar has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    pub(crate) date: u16,
    pub(crate) time: u16,
}

/// 1980-01-01 00:00:00 as seconds since 1970-01-01.
const FIRST: i64 = 315_532_800;
/// 2107-12-31 23:59:58 as seconds since 1970-01-01.
const LAST: i64 = 4_354_819_198;

impl Default for Timestamp {
    /// 1980-01-01 00:00:00, the earliest that the format has.
    fn default() -> Self {
        Self { date: 1 << 5 | 1, time: 0 }
    }
}

impl fmt::Display for Timestamp {
    /// `1980-01-01 00:00:00`, digits as the header has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, time } = self;
        let (year, month, day) = (1980 + (date >> 9), date >> 5 & 15, date & 31);
        let (hour, minute, second) = (time >> 11, time >> 5 & 63, (time & 31) * 2);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

impl Timestamp {
    /// The time `seconds` after 1970-01-01 00:00:00 UTC (the meaning of `SOURCE_DATE_EPOCH`), written as UTC,
    /// clamped to what the format has, and rounded down to an even second.
    pub fn from_unix(seconds: i64) -> Self {
        let seconds = seconds.clamp(FIRST, LAST);
        let (year, month, day) = civil(seconds.div_euclid(86_400));
        let of_day = seconds.rem_euclid(86_400);
        let date = (year - 1980) << 9 | month << 5 | day;
        let time = (of_day / 3600) << 11 | (of_day / 60 % 60) << 5 | (of_day % 60 / 2);
        // The clamp keeps both below 2^16.
        Self { date: u16::try_from(date).unwrap_or(u16::MAX), time: u16::try_from(time).unwrap_or(u16::MAX) }
    }
}

/// Year, month and day of a day number since 1970-01-01. Counts in years from March, so that the leap day is
/// the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097; // days in 400 years
    let days = days + 719_468; // since 0000-03-01
    let era = days.div_euclid(ERA);
    let of_era = days.rem_euclid(ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(stamp: Timestamp) -> (u16, u16, u16, u16, u16, u16) {
        let Timestamp { date, time } = stamp;
        (1980 + (date >> 9), date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63, (time & 31) * 2)
    }

    #[test]
    fn dates_match_the_calendar() {
        let cases = [
            (0, (1980, 1, 1, 0, 0, 0)),
            (-1, (1980, 1, 1, 0, 0, 0)),
            (i64::MIN, (1980, 1, 1, 0, 0, 0)),
            (FIRST, (1980, 1, 1, 0, 0, 0)),
            (951_782_400, (2000, 2, 29, 0, 0, 0)),
            (1_700_000_001, (2023, 11, 14, 22, 13, 20)),
            (4_107_542_399, (2100, 2, 28, 23, 59, 58)),
            (4_107_542_400, (2100, 3, 1, 0, 0, 0)),
            (LAST, (2107, 12, 31, 23, 59, 58)),
            (i64::MAX, (2107, 12, 31, 23, 59, 58)),
        ];
        for (seconds, expected) in cases {
            assert_eq!(parts(Timestamp::from_unix(seconds)), expected, "{seconds}");
        }
        assert_eq!(Timestamp::from_unix(0), Timestamp::default());
    }

    #[test]
    fn a_time_is_shown_as_the_header_has_it() {
        assert_eq!(Timestamp::default().to_string(), "1980-01-01 00:00:00");
        assert_eq!(Timestamp::from_unix(1_700_000_001).to_string(), "2023-11-14 22:13:20");
        assert_eq!(Timestamp { date: 0, time: u16::MAX }.to_string(), "1980-00-00 31:63:62");
    }
}

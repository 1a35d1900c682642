//! The clock as RFC 3339 with nanoseconds in UTC.

use rustix::time::{ClockId, clock_gettime};

/// "2026-11-24T08:00:00.123456789Z".
pub fn now() -> [u8; 30] {
    let time = clock_gettime(ClockId::Realtime);
    format(time.tv_sec, time.tv_nsec)
}

/// Nanoseconds since the epoch.
pub fn now_ns() -> i64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

fn format(seconds: i64, nanoseconds: i64) -> [u8; 30] {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let fields = [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, second / 3600),
        (14, 2, second / 60 % 60),
        (17, 2, second % 60),
        (20, 9, nanoseconds),
    ];
    for (at, digits, mut value) in fields {
        for place in (at..at + digits).rev() {
            text[place] = b'0' + u8::try_from(value.rem_euclid(10)).unwrap_or(0);
            value /= 10;
        }
    }
    text
}

/// Days since the epoch as a date of the proleptic Gregorian calendar (years from March, eras of 400 years).
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let month_from_january = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month_from_january <= 2), month_from_january, of_year - (153 * month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::format;

    #[test]
    fn dates_are_right() {
        let cases = [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, 5, "2000-02-28T23:59:59.000000005Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000000000Z"),
            (1_709_251_199, 999_999_999, "2024-02-29T23:59:59.999999999Z"),
            (1_795_507_200, 1, "2026-11-24T08:00:00.000000001Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z"),
        ];
        for (seconds, nanoseconds, text) in cases {
            assert_eq!(std::str::from_utf8(&format(seconds, nanoseconds)), Ok(text));
        }
    }
}

//! Durations, ages and bytes as people write and read them.

use std::time::Duration;

/// Reads `90`, `90s`, `5m`, `1h30m`, `500ms`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration; write 90s, 5m or 1h30m");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let (mut total_ms, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit_len = rest.bytes().skip(digits).take_while(u8::is_ascii_alphabetic).count();
        let number: u64 = rest.get(..digits).and_then(|n| n.parse().ok()).ok_or_else(bad)?;
        let unit_ms = match rest.get(digits..digits + unit_len) {
            Some("ms") => 1,
            Some("s") => 1000,
            Some("m") => 60_000,
            Some("h") => 3_600_000,
            Some("d") => 86_400_000,
            _ => return Err(bad()),
        };
        total_ms = number.checked_mul(unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(bad)?;
        rest = &rest[digits + unit_len..];
    }
    if text.is_empty() { Err(bad()) } else { Ok(Duration::from_millis(total_ms)) }
}

/// The two biggest units that matter: `5s`, `3m20s`, `2h5m`, `7h`, `2d3h`, `12d`.
pub fn short_duration(seconds: u64) -> String {
    let two = |big: u64, big_unit: char, small: u64, small_unit: char, only_big_from: u64| {
        if small == 0 || big >= only_big_from {
            format!("{big}{big_unit}")
        } else {
            format!("{big}{big_unit}{small}{small_unit}")
        }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..3600 => two(seconds / 60, 'm', seconds % 60, 's', 10),
        3600..172_800 => two(seconds / 3600, 'h', seconds / 60 % 60, 'm', 8),
        _ => two(seconds / 86_400, 'd', seconds / 3600 % 24, 'h', 8),
    }
}

/// How long ago, `-` when the time is not known.
pub fn age(then: Option<&pbjson_types::Timestamp>, now_ms: u64) -> String {
    match strata_proto::timestamp_ms(then) {
        0 => "-".into(),
        then_ms => short_duration(now_ms.saturating_sub(then_ms) / 1000),
    }
}

/// `512`, `1.5Ki`, `24Gi`.
pub fn short_bytes(bytes: u64) -> String {
    let mut unit = "";
    let mut tenths = u128::from(bytes) * 10;
    for next in ["Ki", "Mi", "Gi", "Ti", "Pi"] {
        if tenths < 10_240 {
            break;
        }
        tenths = (tenths + 512) / 1024;
        unit = next;
    }
    if tenths >= 1000 || tenths.is_multiple_of(10) || unit.is_empty() {
        format!("{}{unit}", (tenths + 5) / 10)
    } else {
        format!("{}.{}{unit}", tenths / 10, tenths % 10)
    }
}

/// Processors: `2`, `0.5`, `0.25`.
pub fn short_cpus(millis: u64) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in
            [("90", 90_000), ("90s", 90_000), ("1h30m", 5_400_000), ("500ms", 500), ("2d", 172_800_000), ("0", 0)]
        {
            assert_eq!(parse_duration(text).unwrap().as_millis(), ms, "{text}");
        }
        for text in ["", "s", "5", "5x", "1.5h", "-1", "5m ", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(parse_duration(text).is_ok(), text == "5", "{text}");
        }
    }

    #[test]
    fn ages_bytes_and_cpus_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (700, "11m"),
            (7500, "2h5m"),
            (36_000, "10h"),
            (183_600, "2d3h"),
            (864_000, "10d"),
        ] {
            assert_eq!(short_duration(seconds), text);
        }
        for (bytes, text) in
            [(0, "0"), (1023, "1023"), (1024, "1Ki"), (1536, "1.5Ki"), (25_769_803_776, "24Gi"), (123_456_789, "118Mi")]
        {
            assert_eq!(short_bytes(bytes), text);
        }
        for (millis, text) in [(0, "0"), (500, "0.5"), (2000, "2"), (1250, "1.25"), (10_000, "10")] {
            assert_eq!(short_cpus(millis), text);
        }
    }
}

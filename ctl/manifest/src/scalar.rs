//! What a plain (unquoted) YAML scalar means: as kubectl reads it, which is YAML 1.1's reading of `no`, `on` and `010`.

/// `~`, `null`, nothing.
pub(crate) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// `true`, `no`, `On`, ... (not `y` and `n`, which parsers of YAML 1.1 disagree on).
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// Whether it reads as a whole or fractional number in any notation.
pub(crate) fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let lower = unsigned.to_ascii_lowercase();
    if matches!(lower.as_str(), ".inf" | ".nan") {
        return true;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            return !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix) || c == '_');
        }
    }
    let (mantissa, exponent) = lower.split_once('e').map_or((lower.as_str(), None), |(m, e)| (m, Some(e)));
    let exponent_ok = exponent.is_none_or(|e| {
        let digits = e.strip_prefix(['-', '+']).unwrap_or(e);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    exponent_ok
        && digits(whole)
        && digits(fraction)
        && mantissa.bytes().any(|b| b.is_ascii_digit())
        && !mantissa.starts_with('_')
}

/// A whole decimal number of at least 0. `010` is none: YAML 1.1 reads it as 8, YAML 1.2 as 10.
pub(crate) fn whole(text: &str) -> Option<u64> {
    let plain_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (plain_digits && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

/// What a plain scalar is, for messages.
pub(crate) fn what(text: &str) -> String {
    match text {
        "" => "nothing".to_owned(),
        _ if is_null(text) => format!("`{text}`, which YAML reads as nothing"),
        "true" | "false" => format!("the boolean {text}"),
        _ if boolean(text).is_some() => format!("`{text}`, which YAML reads as a boolean"),
        _ if is_number(text) => format!("the number {}", cut(text)),
        _ => format!("the string {:?}", cut(text)),
    }
}

/// A text short enough for a message.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_yaml_takes_for_numbers() {
        for yes in [
            "0", "8080", "-1", "+3", "1.5", ".5", "1e3", "1.5E-3", "0x1F", "0o17", "010", "1_000", ".inf", "-.Inf",
            ".nan",
        ] {
            assert!(is_number(yes), "{yes}");
        }
        for no in ["", "-", ".", "e3", "1e", "0x", "1.2.3", "12:30", "2024-01-01", "500m", "_1", "1a", "٣"] {
            assert!(!is_number(no), "{no}");
        }
        assert_eq!(
            (whole("10"), whole("010"), whole("0"), whole("-1"), whole("99999999999999999999")),
            (Some(10), None, Some(0), None, None)
        );
    }
}

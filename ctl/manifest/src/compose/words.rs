//! Texts that stand for lists and amounts in Compose files: commands, durations, sizes.

/// Splits a command as a shell does: blanks, quotes and backslashes; nothing is expanded.
///
/// # Errors
/// A quote without an end.
pub(crate) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("the quote ' has no end".to_owned()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some('\n') => {}
                            Some(c) => word.extend(['\\', c]),
                            None => return Err("the quote \" has no end".to_owned()),
                        },
                        Some(c) => word.push(c),
                        None => return Err("the quote \" has no end".to_owned()),
                    }
                }
            }
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err("there is nothing behind the last backslash".to_owned()),
            },
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// A duration such as `1m30s`, `500ms` or `2h`, in milliseconds.
pub(crate) fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut micros: u64 = 0;
    if rest == "0" {
        return Some(0);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
        let (number, more) = rest.split_at(digits);
        let unit_len = more.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(more.len());
        let (unit, more) = more.split_at(unit_len);
        let scale: u64 = match unit {
            "us" | "µs" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.len() > 6 || whole.len() > 9 {
            return None;
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let part: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        let divisor = 10u64.pow(u32::try_from(fraction.len()).ok()?);
        micros = micros.checked_add(whole.checked_mul(scale)?)?.checked_add(part.checked_mul(scale)? / divisor)?;
        rest = more;
    }
    (!text.is_empty()).then(|| micros.div_ceil(1000))
}

/// A number of bytes such as `64m`, `1gb`, `512` or `1.5g`; units are powers of 1024, as Docker's.
pub(crate) fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" | "ki" => 10,
        "m" | "mb" | "mib" | "mi" => 20,
        "g" | "gb" | "gib" | "gi" => 30,
        "t" | "tb" | "tib" | "ti" => 40,
        "p" | "pb" | "pib" | "pi" => 50,
        _ => return None,
    };
    thousandths(number).and_then(|n| n.checked_mul(1 << shift)).map(|n| n.div_ceil(1000))
}

/// Thousandths of a CPU from `0.5` or `2`.
pub(crate) fn thousandths(number: &str) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) || whole.len() > 18 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    whole.checked_mul(1000)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_like_a_shell_does() {
        for (text, want) in [
            ("", vec![]),
            ("a b  c", vec!["a", "b", "c"]),
            ("sh -c 'echo \"$HOME\" x'", vec!["sh", "-c", "echo \"$HOME\" x"]),
            ("a \"b \\\" c\" ''", vec!["a", "b \" c", ""]),
            ("a\\ b \\\n c", vec!["a b", "c"]),
            ("x'y'\"z\"", vec!["xyz"]),
        ] {
            assert_eq!(split(text), Ok(want.into_iter().map(str::to_owned).collect()), "{text}");
        }
        for text in ["'", "a \"b", "x\\"] {
            assert!(split(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_and_sizes_are_dockers() {
        for (text, want) in [
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1.5h", Some(5_400_000)),
            ("10us", Some(1)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("", None),
            ("10", None),
            ("s", None),
            ("1x", None),
            ("-1s", None),
        ] {
            assert_eq!(duration_ms(text), want, "{text}");
        }
        for (text, want) in [
            ("512", Some(512)),
            ("64m", Some(64 << 20)),
            ("50M", Some(50 << 20)),
            ("1.5g", Some(3 << 29)),
            ("2GB", Some(2 << 30)),
            ("10 kb", Some(10 << 10)),
            ("", None),
            ("m", None),
            ("1x", None),
            ("-1", None),
            ("99999999999999999999g", None),
        ] {
            assert_eq!(size(text), want, "{text}");
        }
        assert_eq!(
            [thousandths("0.5"), thousandths("2"), thousandths("1.2345"), thousandths(".")],
            [Some(500), Some(2000), Some(1234), None]
        );
    }
}

//! Signals by name, as STOPSIGNAL of an image and `stopSignal` of a pod write them.

use crate::error::{Error, Result};

/// Name without SIG and number (signal(7), x86 and arm).
const SIGNALS: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];
/// The first and last real-time signal that programs may use.
const REAL_TIME: (i32, i32) = (34, 64);

/// The number of `SIGTERM`, `term`, `15`, `SIGRTMIN+3` or `RTMAX-1`; "" is SIGTERM.
///
/// # Errors
/// `Error::Invalid` for anything else.
pub fn signal_number(text: &str) -> Result<i32> {
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |prefix: &str, sign: char, from: i32, way: i32| {
        let rest = name.strip_prefix(prefix)?;
        let offset = if rest.is_empty() { 0 } else { rest.strip_prefix(sign)?.parse::<u8>().ok()? };
        Some(from + way * i32::from(offset))
    };
    let number = match name {
        "" => Some(15),
        name => SIGNALS
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, number)| *number)
            .or_else(|| name.parse().ok())
            .or_else(|| real_time("RTMIN", '+', REAL_TIME.0, 1))
            .or_else(|| real_time("RTMAX", '-', REAL_TIME.1, -1)),
    };
    let known = |n: &i32| (1..=31).contains(n) || (REAL_TIME.0..=REAL_TIME.1).contains(n);
    number.filter(known).ok_or_else(|| Error::Invalid(format!("{text:?} is no signal; write one like SIGTERM or 15")))
}

#[cfg(test)]
mod tests {
    use super::signal_number;

    #[test]
    fn signals_are_named_in_many_ways() {
        let good =
            [("", 15), ("SIGTERM", 15), ("quit", 3), ("9", 9), ("SIGRTMIN", 34), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)];
        for (text, number) in good {
            assert_eq!(signal_number(text).ok(), Some(number), "{text}");
        }
        for bad in ["SIGFOO", "0", "65", "32", "RTMIN-1", "RTMAX-200", "-9"] {
            assert!(signal_number(bad).is_err(), "{bad}");
        }
    }
}

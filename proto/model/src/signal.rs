//! Signals by name, as images and manifests write them (signal(7), numbers of x86-64 and arm64).

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// The first real-time signal that glibc leaves to programs.
const RTMIN: i32 = 34;
/// The highest signal.
pub const RTMAX: i32 = 64;
/// What is sent where nobody says otherwise.
pub const TERM: i32 = 15;
/// What no process can catch.
pub const KILL: i32 = 9;

/// The number of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`; `None` for anything else.
#[must_use]
pub fn number(text: &str) -> Option<i32> {
    let text = text.trim().to_ascii_uppercase();
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let plus = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse::<i32>().ok()? };
        return Some(RTMIN + plus).filter(|n| (RTMIN..=RTMAX).contains(n));
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        let minus = if rest.is_empty() { 0 } else { rest.strip_prefix('-')?.parse::<i32>().ok()? };
        return Some(RTMAX - minus).filter(|n| (RTMIN..=RTMAX).contains(n));
    }
    NAMES.iter().zip(1..).find(|(n, _)| **n == name).map(|(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_understood() {
        for (text, want) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGQUIT", Some(3)),
            ("SIGWINCH", Some(28)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGSYS", Some(31)),
            ("SIGNO", None),
            ("0", None),
            ("65", None),
            ("", None),
        ] {
            assert_eq!(number(text), want, "{text}");
        }
    }
}

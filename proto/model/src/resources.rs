//! Amounts of node resources.

use crate::Invalid;

/// Amounts of node resources; 0 = not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
}

impl Resources {
    /// The sum, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            pids: self.pids.saturating_add(other.pids),
        }
    }

    /// The difference, never below 0.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            pids: self.pids.saturating_sub(other.pids),
        }
    }

    /// Whether this much fits into `free`.
    #[must_use]
    pub fn fits(self, free: Self) -> bool {
        self.cpu_millis <= free.cpu_millis && self.memory_bytes <= free.memory_bytes && self.pids <= free.pids
    }
}

/// A Kubernetes quantity ("100m", "1.5", "128Mi", "1e3"), in thousandths so that CPUs are exact.
/// Source: Kubernetes API conventions, `apimachinery/pkg/api/resource/quantity.go`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    /// The value in thousandths of a unit.
    pub thousandths: u64,
}

impl Quantity {
    /// Parses a quantity; rounds a fraction below a thousandth up, as Kubernetes does.
    ///
    /// # Errors
    /// [`Invalid`] for anything else, negative numbers and values above 2^64/1000.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let bad = || {
            Invalid::new(
                "quantity",
                text,
                "use a number with an optional suffix: m, k, M, G, T, P, Ki, Mi, Gi, Ti, Pi or an exponent such as e3",
            )
        };
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(split);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(bad());
        }
        // The value is digits * scale / 10^decimals, in thousandths.
        let (scale, divisor): (u128, u128) = match suffix {
            "" => (1_000, 1),
            "n" => (1, 1_000_000),
            "u" => (1, 1_000),
            "m" => (1, 1),
            "k" => (1_000_000, 1),
            "M" => (1_000_000_000, 1),
            "G" => (1_000_000_000_000, 1),
            "T" => (1_000_000_000_000_000, 1),
            "P" => (1_000_000_000_000_000_000, 1),
            "Ki" => (1_000 << 10, 1),
            "Mi" => (1_000 << 20, 1),
            "Gi" => (1_000 << 30, 1),
            "Ti" => (1_000 << 40, 1),
            "Pi" => (1_000 << 50, 1),
            exponent => {
                let digits = exponent.strip_prefix(['e', 'E']).ok_or_else(bad)?;
                let power: u32 = digits.strip_prefix('+').unwrap_or(digits).parse().map_err(|_| bad())?;
                (10u128.checked_pow(power).and_then(|p| p.checked_mul(1_000)).ok_or_else(bad)?, 1)
            }
        };
        if whole.len() + fraction.len() > 20 {
            return Err(bad());
        }
        let mut digits: u128 = 0;
        for b in whole.bytes().chain(fraction.bytes()) {
            digits = digits * 10 + u128::from(b - b'0');
        }
        let divisor = divisor * 10u128.pow(u32::try_from(fraction.len()).map_err(|_| bad())?);
        let value = digits.checked_mul(scale).ok_or_else(bad)?.div_ceil(divisor);
        u64::try_from(value).map(|thousandths| Self { thousandths }).map_err(|_| bad())
    }

    /// Whole units, rounded up.
    #[must_use]
    pub fn units(self) -> u64 {
        self.thousandths.div_ceil(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_mean_what_kubernetes_says() {
        for (text, thousandths) in [
            ("100m", 100),
            ("1", 1_000),
            ("1.5", 1_500),
            ("0.1", 100),
            ("128Mi", 134_217_728_000),
            ("1e3", 1_000_000),
            ("1k", 1_000_000),
            ("2Gi", 2_147_483_648_000),
            ("0.0001", 1),
            (".5", 500),
            ("5.", 5_000),
            ("1u", 1),
            ("0", 0),
        ] {
            assert_eq!(Quantity::parse(text).map(|q| q.thousandths), Ok(thousandths), "{text}");
        }
        for text in ["", "-1", "1 Mi", "Mi", "1.2.3", "1mi", "99999999999999999999999", "1e99", ".", "١"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }
}

//! Which of an index's manifests is for this machine.

use std::fmt;

/// An operating system and processor as OCI names them (image-index.md, "platform").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: &'static str,
    /// `amd64`, `arm64`, …
    pub architecture: &'static str,
    /// The variants that run here, best first; "" stands for "none said".
    pub variants: Vec<&'static str>,
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variants) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", amd64_variants()),
            "aarch64" => ("arm64", vec!["v8", ""]),
            "arm" => ("arm", vec!["v7", "", "v6", "v5"]),
            "x86" => ("386", vec![""]),
            "powerpc64" => ("ppc64le", vec![""]),
            other => (other, vec![""]),
        };
        Self { os: std::env::consts::OS, architecture, variants }
    }

    /// How well something made for the given platform runs here: 0 is best, `None` not at all. An empty variant of one
    /// that is listed here as "" ranks as that; unknown variants do not run.
    #[must_use]
    pub fn rank(&self, os: &str, architecture: &str, variant: &str) -> Option<usize> {
        if os != self.os || architecture != self.architecture {
            return None;
        }
        self.variants.iter().position(|known| *known == variant)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// The x86-64 micro-architecture levels (psABI) that this processor has.
#[cfg(target_arch = "x86_64")]
fn amd64_variants() -> Vec<&'static str> {
    let v2 = is_x86_feature_detected!("sse4.2")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("cmpxchg16b");
    let v3 = v2
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("movbe");
    let mut variants = Vec::new();
    if v3 {
        variants.push("v3");
    }
    if v2 {
        variants.push("v2");
    }
    variants.extend(["v1", ""]);
    variants
}

#[cfg(not(target_arch = "x86_64"))]
fn amd64_variants() -> Vec<&'static str> {
    vec![""]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_variant_that_runs_wins() {
        let arm = Platform { os: "linux", architecture: "arm", variants: vec!["v7", "", "v6"] };
        assert_eq!(arm.rank("linux", "arm", "v7"), Some(0));
        assert_eq!(arm.rank("linux", "arm", "v6"), Some(2));
        assert_eq!(arm.rank("linux", "arm", "v8"), None);
        assert_eq!(arm.rank("windows", "arm", "v7"), None);
        assert_eq!(arm.rank("linux", "arm64", "v7"), None);
    }
}

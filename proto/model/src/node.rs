//! Nodes and their subnets.

use crate::{Invalid, Labels, Layer, NodeName, Resources};
use alloc::vec::Vec;
use core::{fmt, net::Ipv4Addr, str::FromStr};

/// A machine that runs pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its certificate is bound to it.
    pub name: NodeName,
    /// For selectors.
    pub labels: Labels,
    /// From leases, never from hearsay.
    pub phase: NodePhase,
    /// No new pods.
    pub unschedulable: bool,
    /// Its pods are to be moved away.
    pub draining: bool,
    /// What it has.
    pub capacity: Resources,
    /// Layers it holds.
    pub layers: Vec<Layer>,
    /// Its pods' addresses.
    pub subnet: Subnet,
}

/// Whether a node is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NodePhase {
    /// Not heard of in time, or not yet after a start of the controller.
    #[default]
    Unknown,
    /// Its lease is valid.
    Ready,
    /// Its lease has ended: its pods are given away.
    Lost,
}

/// An IPv4 prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    /// The network address, host bits 0.
    pub network: Ipv4Addr,
    /// 1 to 30.
    pub prefix_len: u8,
}

impl Subnet {
    /// The address with this index; index 1 is the gateway. `None` beyond the last usable address.
    #[must_use]
    pub fn address(self, index: u32) -> Option<Ipv4Addr> {
        let size = 1u64 << (32 - u32::from(self.prefix_len));
        (u64::from(index) + 1 < size && index > 0).then(|| Ipv4Addr::from(u32::from(self.network) + index))
    }

    /// Indexes for pods: 2 up to this one.
    #[must_use]
    pub fn last_index(self) -> u32 {
        u32::try_from((1u64 << (32 - u32::from(self.prefix_len))) - 2).unwrap_or(u32::MAX)
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (u32::from(address) ^ u32::from(self.network)).leading_zeros() >= u32::from(self.prefix_len)
    }

    /// Whether some address is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// The n-th subnet (from 0) of length `prefix_len` within this range.
    #[must_use]
    pub fn nth(self, n: u32, prefix_len: u8) -> Option<Self> {
        if prefix_len < self.prefix_len || prefix_len > 30 {
            return None;
        }
        let count = 1u64 << (prefix_len - self.prefix_len);
        let step = 1u64 << (32 - u32::from(prefix_len));
        let network = u32::try_from(u64::from(u32::from(self.network)) + u64::from(n) * step).ok()?;
        (u64::from(n) < count).then(|| Self { network: Ipv4Addr::from(network), prefix_len })
    }
}

impl FromStr for Subnet {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || {
            Invalid::new(
                "subnet",
                text,
                "ADDRESS/LENGTH is expected with a length of 1 to 30 and no host bits, as in 10.64.0.0/10",
            )
        };
        let (address, len) = text.split_once('/').ok_or_else(bad)?;
        let network: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix_len: u8 = len.parse().map_err(|_| bad())?;
        if !(1..=30).contains(&prefix_len) || u32::from(network) & (u32::MAX >> prefix_len) != 0 {
            return Err(bad());
        }
        Ok(Self { network, prefix_len })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_cut_and_counted() {
        let range: Subnet = "10.64.0.0/10".parse().unwrap_or(Subnet { network: Ipv4Addr::UNSPECIFIED, prefix_len: 1 });
        let third = range.nth(3, 20);
        assert_eq!(third.map(|s| alloc::format!("{s}")).as_deref(), Some("10.64.48.0/20"));
        assert_eq!(third.and_then(|s| s.address(2)), Some(Ipv4Addr::new(10, 64, 48, 2)));
        assert_eq!(third.and_then(|s| s.address(4095)), None, "the broadcast address");
        assert_eq!(range.nth(1024, 20), None);
        assert!(range.contains(Ipv4Addr::new(10, 127, 255, 255)) && !range.contains(Ipv4Addr::new(10, 128, 0, 0)));
        assert!(third.is_some_and(|s| s.overlaps(range) && range.overlaps(s)));
        assert!("10.64.0.1/10".parse::<Subnet>().is_err());
    }
}

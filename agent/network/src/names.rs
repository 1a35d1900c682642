//! Names and MAC addresses of links.

use std::net::Ipv4Addr;

use strata_model::Digest;

use crate::NetworkError;

/// The name of a pod's link inside its network namespace.
pub const POD_IFNAME: &str = "eth0";

/// How the host's ends of pods' links begin: what else is attached to the bridge is not ours.
pub(crate) const HOST_PREFIX: &str = "sp";

/// The name of the host's end of a sandbox's link: 15 characters, the kernel's limit (IFNAMSIZ - 1).
///
/// `sandbox` must be different for each life of a sandbox, such as `UID/ATTEMPT`: the link of the life before may still be on its
/// way out.
#[must_use]
pub fn host_ifname(sandbox: &str) -> String {
    format!("{HOST_PREFIX}{}", &Digest::of(sandbox.as_bytes()).hex()[..13])
}

/// The kernel's rules for link names (`dev_valid_name`), and '%', which it would take for a pattern.
pub(crate) fn check_ifname(name: &str) -> Result<(), NetworkError> {
    let ok = !name.is_empty()
        && name.len() <= 15
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'));
    if ok { Ok(()) } else { Err(NetworkError::BadName { name: name.to_owned() }) }
}

/// A locally administered MAC address made of an IPv4 address.
pub(crate) fn mac_of(address: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = address.octets();
    vec![0x0a, 0x58, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_life_of_a_sandbox_has_a_name_that_the_kernel_takes() {
        let first = host_ifname("0198c0de-0000-7000-8000-000000000001/0");
        assert_ne!(first, host_ifname("0198c0de-0000-7000-8000-000000000001/1"));
        assert_eq!(first.len(), 15);
        assert!(check_ifname(&first).is_ok());
    }

    #[test]
    fn names_the_kernel_refuses_are_refused_before() {
        for bad in ["", "a/b", "sixteen-letters-", "a b", "veth%d", "..", "é"] {
            assert!(check_ifname(bad).is_err(), "{bad}");
        }
    }
}

//! The kernel's count of changes of nftables in this network namespace: whether somebody else changed something.

use super::nfnetlink::{Netfilter, attributes};
use crate::NetworkError;
use std::io;

/// NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN.
const GETGEN: u16 = (10 << 8) | 16;
/// NFTA_GEN_ID, a big-endian number.
const GEN_ID: u16 = 1;

/// The present count; each transaction adds one.
pub(super) fn current() -> Result<u32, NetworkError> {
    let failed = |source| NetworkError::Kernel { action: "ask for the generation of nftables".to_owned(), source };
    let mut generation = None;
    let asked = Netfilter::open().and_then(|netfilter| {
        netfilter.ask(GETGEN, 0, 0, &[], |body| {
            let id = attributes(body).find(|(kind, _)| *kind == GEN_ID).map(|(_, content)| content);
            generation = id.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        })
    });
    asked.map_err(failed)?;
    generation.ok_or_else(|| failed(io::Error::other("the answer has none")))
}

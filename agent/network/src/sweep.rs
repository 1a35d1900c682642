//! Links that nobody owns any more.

use std::collections::HashSet;

use crate::{
    NetworkError, NodeNetwork,
    names::HOST_PREFIX,
    netlink::{bridge_of, name_of},
};

impl NodeNetwork {
    /// Removes the links of pods on this bridge whose host names are not in `keep`; answers with their names.
    ///
    /// The pods that are being attached belong into `keep` too. Links whose names are not ours stay. Each removal waits for the kernel
    /// (tens of milliseconds): this is for the start of an agent and for the background.
    ///
    /// # Errors
    /// [`NetworkError`] if links cannot be listed or one cannot be removed.
    pub async fn sweep(&self, keep: &HashSet<String>) -> Result<Vec<String>, NetworkError> {
        let links = self.netlink.links().await?;
        let ours = links.iter().filter(|l| bridge_of(l) == Some(self.bridge_index)).filter_map(name_of);
        let stale: Vec<String> = ours
            .filter(|n| n.starts_with(HOST_PREFIX) && n.len() == 15 && !keep.contains(*n))
            .map(str::to_owned)
            .collect();
        for name in &stale {
            tracing::info!(link = name, bridge = self.bridge, "removing the link of a pod that is gone");
            self.remove(name).await?;
        }
        Ok(stale)
    }
}

//! Services on this node: rules of nftables in one table of its own, that translate virtual addresses and published ports to pods.
//!
//! In: the services as the controller last told them. Out: kernel state, and nothing remembered but what was put there: a new agent puts
//! everything again, in one transaction, and rules that somebody flushed are put again by [`ServiceRules::check`].
//!
//! Invariants:
//! - A change is one transaction: no packet meets half of it. Connections that are there already keep their pod.
//! - The cost of a packet does not depend on the number of services: a map leads to the rule of its service, another to the pod.
//! - The client's address stays, except where an answer would not come back through this node: pods that reach themselves, and clients from
//!   elsewhere whose connection goes on to another node. Pods of this node send everything through the gateway, so answers between
//!   two of them pass here too.
//! - Whatever is sent to the range of services and belongs to none, or to one without pods, is refused at once.

mod conntrack;
mod generation;
mod nfnetlink;
mod nft;
mod render;

use crate::NetworkError;
use render::Rendered;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};
use strata_model::{Digest, ObjectName, ServiceView, Subnet};

/// What the rules of a node depend on beside its services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Names the table: two agents on one machine have different ones.
    pub instance: String,
    /// The node's name.
    pub node: String,
    /// The node's pods.
    pub subnet: Subnet,
    /// All pods.
    pub cluster_range: Subnet,
    /// Virtual addresses.
    pub service_range: Subnet,
}

impl ServiceSettings {
    /// The name of the table.
    #[must_use]
    pub fn table(&self) -> String {
        format!("strata-{}", &Digest::of(self.instance.as_bytes()).hex()[..12])
    }
}

/// The rules as they were last put.
#[derive(Debug)]
pub struct ServiceRules {
    settings: ServiceSettings,
    table: String,
    rendered: BTreeMap<ObjectName, Rendered>,
    /// How many services have this pod of the node behind them.
    hairpins: BTreeMap<Ipv4Addr, usize>,
    /// The kernel's count of changes after the last one of ours; `None`: put everything again.
    generation: Option<u32>,
}

impl ServiceRules {
    /// Nothing is put yet.
    #[must_use]
    pub fn new(settings: ServiceSettings) -> Self {
        let table = settings.table();
        Self { settings, table, rendered: BTreeMap::new(), hairpins: BTreeMap::new(), generation: None }
    }

    /// Makes the rules those of exactly these services.
    ///
    /// # Errors
    /// [`NetworkError`]: `nft` is missing, or the kernel refuses. Then everything is put again at the next call.
    pub async fn replace(&mut self, services: &BTreeMap<ObjectName, ServiceView>) -> Result<(), NetworkError> {
        let before = self.udp_endpoints();
        self.rendered = services.iter().map(|(name, view)| (name.clone(), self.render(view))).collect();
        self.hairpins.clear();
        for address in self.rendered.values().flat_map(|r| &r.hairpins) {
            *self.hairpins.entry(*address).or_default() += 1;
        }
        self.put_everything().await?;
        self.forget_connections(&before).await;
        Ok(())
    }

    /// Makes the rules of some services what they should be now; `None`: the service is no more.
    ///
    /// # Errors
    /// As [`ServiceRules::replace`].
    pub async fn change(&mut self, changes: &[(ObjectName, Option<&ServiceView>)]) -> Result<(), NetworkError> {
        let before = self.udp_endpoints_of(changes.iter().map(|(name, _)| name));
        let had = self.generation.take();
        let mut script = String::new();
        for (name, view) in changes {
            let old = self.rendered.remove(name).unwrap_or_default();
            let new = view.map(|view| self.render(view)).unwrap_or_default();
            for address in &new.hairpins {
                *self.hairpins.entry(*address).or_default() += 1;
            }
            let mut free = BTreeSet::new();
            for address in &old.hairpins {
                if let Some(count) = self.hairpins.get_mut(address) {
                    *count -= 1;
                    if *count == 0 {
                        self.hairpins.remove(address);
                        free.insert(*address);
                    }
                }
            }
            let fresh: BTreeSet<Ipv4Addr> = new.hairpins.difference(&old.hairpins).copied().collect();
            script += &render::difference(&self.table, &old, &new, &fresh, &free);
            if view.is_some() {
                self.rendered.insert(name.clone(), new);
            }
        }
        if had.is_none() {
            self.put_everything().await?;
        } else if !script.is_empty() {
            nft::run(&script).await?;
            // Somebody else's change in between makes a gap, and the next check puts everything again.
            let now = generation::current()?;
            self.generation = had.map(|had| had.wrapping_add(1)).filter(|expected| *expected == now);
        } else {
            self.generation = had;
        }
        self.forget_connections(&before).await;
        Ok(())
    }

    /// Puts everything again if anything was changed by others since the last change of ours. Cheap when nothing was.
    ///
    /// # Errors
    /// As [`ServiceRules::replace`].
    pub async fn check(&mut self) -> Result<bool, NetworkError> {
        let now = generation::current()?;
        if self.generation == Some(now) {
            return Ok(false);
        }
        self.put_everything().await?;
        Ok(true)
    }

    async fn put_everything(&mut self) -> Result<(), NetworkError> {
        self.generation = None;
        let script = render::everything(&self.settings, &self.table, self.rendered.values(), self.hairpins.keys());
        nft::run(&script).await?;
        self.generation = Some(generation::current()?);
        Ok(())
    }

    fn render(&self, view: &ServiceView) -> Rendered {
        render::service(view, &self.settings.node)
    }

    fn udp_endpoints(&self) -> BTreeSet<(Ipv4Addr, u16)> {
        self.udp_endpoints_of(self.rendered.keys())
    }

    fn udp_endpoints_of<'a>(&self, names: impl Iterator<Item = &'a ObjectName>) -> BTreeSet<(Ipv4Addr, u16)> {
        names.filter_map(|name| self.rendered.get(name)).flat_map(|r| r.udp.iter().copied()).collect()
    }

    /// A UDP "connection" lives as long as its client sends: one to a pod that is gone would never find another.
    async fn forget_connections(&self, before: &BTreeSet<(Ipv4Addr, u16)>) {
        if before.is_empty() {
            return;
        }
        let now = self.udp_endpoints();
        let gone: BTreeSet<(Ipv4Addr, u16)> = before.difference(&now).copied().collect();
        if gone.is_empty() {
            return;
        }
        let forgotten = tokio::task::spawn_blocking(move || conntrack::forget_udp(&gone));
        match forgotten.await.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
            Ok(count) => tracing::debug!(count, "UDP connections to pods that are gone are forgotten"),
            Err(error) => tracing::warn!(%error, "UDP connections to pods that are gone are not forgotten"),
        }
    }
}

/// Removes the table, as when the node is cleaned up. One that is not there is fine.
///
/// # Errors
/// [`NetworkError`].
pub async fn remove(settings: &ServiceSettings) -> Result<(), NetworkError> {
    let table = settings.table();
    nft::run(&format!("add table ip {table}\ndelete table ip {table}\n")).await
}

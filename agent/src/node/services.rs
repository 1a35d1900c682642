//! Services of this machine: the rules of nftables and the names of DNS, as the controller last told them.
//!
//! What was told is kept in `STATE/services` (the frame that says it all), so that an agent which starts without a controller serves them too.

use super::{Node, blocking, network::trouble};
use crate::world::{ServiceRanges, Trouble};
use prost::Message as _;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use strata_model::{ObjectName, ServiceView};
use strata_network::{ServiceRules, ServiceSettings};
use strata_proto::dispatch::{ServiceEntry, Services as Frame};
use tokio::time::{MissedTickBehavior, interval};

/// How often it is looked whether somebody else changed the rules.
const CHECK_EVERY: Duration = Duration::from_secs(3);
/// The wait before DNS is tried again.
const DNS_RETRY: Duration = Duration::from_millis(500);
/// Checks between two looks at whether the services have to be saved.
const SAVE_EVERY_CHECKS: u32 = 2;

/// What was told last, and what was made of it.
#[derive(Default)]
pub(super) struct Services {
    ranges: Option<ServiceRanges>,
    told: BTreeMap<ObjectName, ServiceEntry>,
    views: BTreeMap<ObjectName, ServiceView>,
    rules: Option<(ServiceSettings, ServiceRules)>,
    unsaved: bool,
}

impl Services {
    /// Takes a frame in; the names of what has changed, `None` = all.
    fn take(&mut self, frame: &Frame) -> Option<Vec<ObjectName>> {
        if frame.full {
            self.told.clear();
            self.views.clear();
        }
        let mut changed = Vec::new();
        for entry in &frame.changed {
            let name = ObjectName::new(entry.namespace.clone(), entry.name.clone());
            match ServiceView::try_from(entry) {
                Ok(view) => {
                    self.views.insert(name.clone(), view);
                    self.told.insert(name.clone(), entry.clone());
                }
                Err(error) => {
                    tracing::warn!(service = %name, %error, "a service that makes no sense is left out");
                    self.views.remove(&name);
                    self.told.remove(&name);
                }
            }
            changed.push(name);
        }
        for text in &frame.removed {
            let Some((namespace, name)) = text.split_once('/') else { continue };
            let name = ObjectName::new(namespace, name);
            self.views.remove(&name);
            self.told.remove(&name);
            changed.push(name);
        }
        self.unsaved = true;
        (!frame.full).then_some(changed)
    }

    fn frame(&self) -> Frame {
        Frame { full: true, sequence: 0, changed: self.told.values().cloned().collect(), removed: vec![] }
    }
}

impl Node {
    pub(super) async fn take_services(&self, ranges: &ServiceRanges, frame: &Frame) -> Result<(), Trouble> {
        let network = self.network()?;
        let mut services = self.services.lock().await;
        services.ranges = Some(ranges.clone());
        let changed = services.take(frame);
        match &changed {
            Some(changed) => self.names.change(changed.iter().map(|name| (name, services.views.get(name)))),
            None => self.names.replace(&ranges.domain, services.views.values()),
        }
        network.ensure_service_route(ranges.services).await.map_err(trouble)?;
        let settings = ServiceSettings {
            instance: self.setup.state_dir.display().to_string(),
            node: self.setup.name.clone(),
            subnet: network.subnet(),
            cluster_range: ranges.cluster,
            service_range: ranges.services,
        };
        let Services { rules, views, .. } = &mut *services;
        match (rules, changed) {
            (Some((present, rules)), Some(changed)) if *present == settings => {
                let changes: Vec<_> = changed
                    .into_iter()
                    .map(|n| {
                        let view = views.get(&n);
                        (n, view)
                    })
                    .collect();
                rules.change(&changes).await.map_err(trouble)
            }
            (slot, _) => {
                let (_, rules) = slot.insert((settings.clone(), ServiceRules::new(settings)));
                rules.replace(views).await.map_err(trouble)
            }
        }
    }

    /// Serves what was told before this agent started, until a controller says more.
    pub async fn restore_services(&self, ranges: ServiceRanges) {
        let path = self.services_file();
        let read = blocking(move || std::fs::read(path)).await;
        let frame = match read {
            Ok(Ok(bytes)) => Frame::decode(bytes.as_slice()).map_err(io::Error::other),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return,
            Ok(Err(error)) => Err(error),
            Err(_) => return,
        };
        match frame {
            Ok(frame) => {
                if let Err(trouble) = self.take_services(&ranges, &frame).await {
                    tracing::warn!(reason = trouble.reason, "services wait for the controller: {trouble}");
                }
            }
            Err(error) => tracing::warn!(%error, "the saved services cannot be read: they wait for the controller"),
        }
    }

    /// Puts the rules again when somebody else has changed something, for ever.
    pub async fn tend_services(&self) {
        let mut ticks = interval(CHECK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut checks = 0_u32;
        loop {
            ticks.tick().await;
            checks = checks.wrapping_add(1);
            let mut services = self.services.lock().await;
            let Services { rules, ranges, .. } = &mut *services;
            if let (Some((_, rules)), Some(ranges), Ok(network)) = (rules, ranges.as_ref(), self.network()) {
                match rules.check().await {
                    Ok(true) => tracing::info!("the rules of services were put again: something else changed nftables"),
                    Ok(false) => {}
                    Err(e) => {
                        tracing::warn!(reason = e.reason(), "the rules of services are not as they should be: {e}")
                    }
                }
                if let Err(e) = network.ensure_service_route(ranges.services).await {
                    tracing::warn!(reason = e.reason(), "{e}");
                }
            }
            if services.unsaved && checks.is_multiple_of(SAVE_EVERY_CHECKS) {
                services.unsaved = false;
                let (bytes, path) = (services.frame().encode_to_vec(), self.services_file());
                drop(services);
                if let Ok(Err(error)) = blocking(move || save(&path, &bytes)).await {
                    tracing::warn!(%error, "the services are not saved: an agent that starts without a controller lacks them");
                }
            }
        }
    }

    /// Serves DNS at the gateway of the node's pods, for ever; when it cannot, it tries again.
    pub async fn serve_dns(&self) {
        loop {
            if let Ok(network) = self.network() {
                tokio::select! {
                    ended = strata_network::serve_dns(network.gateway(), self.names.clone()) => if let Err(e) = ended {
                        tracing::warn!(reason = e.reason(), "pods have no DNS now: {e}");
                    },
                    () = self.gateway_changes(network.gateway()) => {}
                }
            }
            tokio::time::sleep(DNS_RETRY).await;
        }
    }

    /// Returns when the gateway is another one.
    async fn gateway_changes(&self, from: std::net::Ipv4Addr) {
        while self.network().is_ok_and(|network| network.gateway() == from) {
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }

    fn services_file(&self) -> PathBuf {
        self.setup.state_dir.join("services")
    }
}

/// Not synced: after a crash of the machine the controller tells them anew.
fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(new, path)
}

/// The names that DNS serves; shared with the server.
pub(super) type Names = Arc<strata_network::Names>;

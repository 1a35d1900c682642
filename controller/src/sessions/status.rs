//! Reports of pods: what of them is believed, and how it gets into the store.

use crate::{
    control::Control,
    edit::{Keep, TRIES_MAX, changed},
    objects::{is_ended, meta, pod_spec, pod_status, pod_status_mut, template_key, template_spec},
};
use std::collections::{BTreeMap, HashMap};
use strata_proto::{
    dispatch::PodReport,
    timestamp_now,
    types::{self, Object, pod_status::Phase},
};
use strata_store::{Change, Condition, Key, Snapshot, StoreError};
use tracing::debug;

/// Reports that are put into one commit.
pub const REPORTS_PER_COMMIT: usize = 100;

/// The pods of one node, as its session knows them: their keys by uid.
pub(super) struct Pods {
    node: String,
    keys: HashMap<String, Key>,
}

impl Pods {
    pub fn new(node: &str) -> Self {
        Self { node: node.to_owned(), keys: HashMap::new() }
    }

    /// Stores what is new in these reports.
    pub async fn apply(&mut self, control: &Control, reports: &[PodReport]) -> Result<(), StoreError> {
        for part in reports.chunks(REPORTS_PER_COMMIT) {
            self.apply_part(control, part).await?;
        }
        for report in reports.iter().filter(|r| r.gone) {
            control.sessions.stranger_gone(&self.node, &report.uid);
        }
        Ok(())
    }

    /// Notes which of the reported pods the store does not want here (any more): their addresses are not free until they are gone.
    pub fn remember_strangers(&mut self, control: &Control, reports: &[PodReport]) {
        let snapshot = control.store.snapshot();
        let index_of = |report: &PodReport| {
            let address: std::net::Ipv4Addr = report.status.as_ref()?.address.parse().ok()?;
            let object = snapshot.get(&crate::objects::node_key(&self.node))?;
            let subnet: strata_model::Subnet = crate::objects::node_spec(&object).subnet.parse().ok()?;
            u32::from(address).checked_sub(u32::from(subnet.network))
        };
        let mut strangers = BTreeMap::new();
        for report in reports.iter().filter(|r| !r.gone) {
            if find(&mut self.keys, &snapshot, &self.node, &report.uid).is_none()
                && let Some(index) = index_of(report)
            {
                strangers.insert(report.uid.clone(), index);
            }
        }
        control.sessions.set_strangers(&self.node, strangers);
    }

    async fn apply_part(&mut self, control: &Control, reports: &[PodReport]) -> Result<(), StoreError> {
        for tries in 1.. {
            let snapshot = control.store.snapshot();
            let changes: Vec<Change> = reports.iter().filter_map(|report| self.change_for(&snapshot, report)).collect();
            if changes.is_empty() {
                return Ok(());
            }
            match control.store.commit(changes).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Conflict { .. }) if tries < TRIES_MAX => {}
                Err(StoreError::Conflict { key, .. }) if reports.len() > 1 => {
                    // Something changes all the time; the others must not suffer.
                    debug!(%key, node = self.node, "reports are stored one by one");
                    for report in reports {
                        Box::pin(self.apply_part(control, std::slice::from_ref(report))).await?;
                    }
                    return Ok(());
                }
                // The agent reports it again with its next change, or at the latest with its next Hello.
                Err(StoreError::Conflict { key, .. }) => {
                    debug!(%key, node = self.node, "a report is dropped");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn change_for(&mut self, snapshot: &Snapshot, report: &PodReport) -> Option<Change> {
        let found = find(&mut self.keys, snapshot, &self.node, &report.uid)?;
        let old = pod_status(&found);
        if report.gone {
            // A pod that should still be there is made again by its node: only a removed one leaves the records.
            return meta(&found)
                .deleted
                .is_some()
                .then(|| Change::delete(Key::of(&found), Condition::Revision(meta(&found).revision)));
        }
        let new = report.status.as_ref()?;
        if !is_news(old, new) {
            return None;
        }
        let mut status = new.clone();
        // Where it is, the controller decides.
        status.node.clone_from(&old.node);
        status.address.clone_from(&old.address);
        status.addresses.clone_from(&old.addresses);
        if status.started.is_none() {
            status.started = old.started;
        }
        // By this clock: what has to be ready for a while is waited for by it.
        let since = if old.ready { old.ready_since } else { None };
        status.ready_since = if status.ready { since.or_else(|| Some(timestamp_now())) } else { None };
        name_images(snapshot, &pod_spec(&found).template_revision, &mut status);
        if *old == status {
            return None;
        }
        let keep = if is_ended(&status) && !is_ended(old) { Keep::Durable } else { Keep::Volatile };
        let mut object = Object::clone(&found);
        *pod_status_mut(&mut object)? = status;
        Some(changed(object, keep))
    }
}

/// The pod with this uid that is bound to the node.
fn find(keys: &mut HashMap<String, Key>, snapshot: &Snapshot, node: &str, uid: &str) -> Option<std::sync::Arc<Object>> {
    let is_it = |o: &Object| meta(o).uid == uid && pod_spec(o).node == node && pod_spec(o).address_index > 0;
    if let Some(key) = keys.get(uid) {
        if let Some(object) = snapshot.get(key).filter(|o| is_it(o)) {
            return Some(object);
        }
        keys.remove(uid);
    }
    let mut found = None;
    for object in snapshot.pods_of_node(node) {
        let this = is_it(&object);
        keys.insert(meta(&object).uid.clone(), Key::of(&object));
        if this {
            found = Some(object);
        }
    }
    found
}

/// `(attempt, phase)` only grows; a Lost pod has been given away and stays Lost.
fn is_news(old: &types::PodStatus, new: &types::PodStatus) -> bool {
    let (old_phase, new_phase) = (strata_model::Phase::from(old.phase()), strata_model::Phase::from(new.phase()));
    old.phase() != Phase::Lost && new.phase() != Phase::Lost && (new.attempt, new_phase) >= (old.attempt, old_phase)
}

/// Fills in which image each container runs, where the node does not say.
fn name_images(snapshot: &Snapshot, revision: &str, status: &mut types::PodStatus) {
    if status.containers.iter().all(|c| !c.image.is_empty()) {
        return;
    }
    let Some(template) = snapshot.get(&template_key(revision)) else { return };
    let containers = template_spec(&template).and_then(|t| t.pod.as_ref()).map_or(&[][..], |p| &p.containers);
    for status in status.containers.iter_mut().filter(|c| c.image.is_empty()) {
        if let Some(container) = containers.iter().find(|c| c.name == status.name) {
            status.image.clone_from(&container.image);
            status.image_digest.clone_from(&container.image_digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(attempt: u32, phase: Phase) -> types::PodStatus {
        types::PodStatus { attempt, phase: phase.into(), ..types::PodStatus::default() }
    }

    #[test]
    fn only_what_is_not_older_is_believed() {
        for (old, new, believed) in [
            ((0, Phase::Assigned), (0, Phase::Preparing), true),
            ((0, Phase::Running), (0, Phase::Running), true),
            ((0, Phase::Running), (0, Phase::Starting), false),
            ((0, Phase::Running), (1, Phase::Preparing), true),
            ((1, Phase::Preparing), (0, Phase::Running), false),
            ((0, Phase::Lost), (1, Phase::Running), false),
            ((0, Phase::Running), (0, Phase::Lost), false),
        ] {
            let news = is_news(&status(old.0, old.1), &status(new.0, new.1));
            assert_eq!(news, believed, "{old:?} -> {new:?}");
        }
    }
}

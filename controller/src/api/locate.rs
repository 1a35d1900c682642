//! Locate: which nodes have layers and images, from their own reports.

use super::{Refusal, limits, node_clients};
use std::collections::{HashMap, HashSet};
use strata_proto::{
    cluster::{Holder, LocateRequest, LocateResponse},
    node::ImportedImage,
    types::{Kind, node_status::Phase, object},
};
use strata_store::{Key, Snapshot};

/// The ready nodes, but the asking one, that have what is asked for. Each digest is named for a bounded number of nodes.
pub(super) fn locate(snapshot: &Snapshot, request: &LocateRequest, asking: &str) -> Result<LocateResponse, Refusal> {
    if request.diff_ids.len() + request.image_digests.len() + request.image_names.len() > limits::LOCATE_DIGESTS {
        return Err(Refusal::invalid(format!("at most {} digests in one call", limits::LOCATE_DIGESTS)));
    }
    let layers: HashSet<&str> = request.diff_ids.iter().map(String::as_str).collect();
    let images: HashSet<&str> = request.image_digests.iter().map(String::as_str).collect();
    let mut found: HashMap<String, usize> = HashMap::new();
    let mut wanted = |digest: &str| {
        let count = found.entry(digest.to_owned()).or_default();
        *count += 1;
        *count <= limits::LOCATE_HOLDERS
    };
    let mut holders = Vec::new();
    for object in snapshot.list(Kind::Node, None) {
        let name = object.meta.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        let Some(status) = node_clients::status(&object) else { continue };
        let Some(address) = node_clients::address_of(status) else { continue };
        if name == asking || status.phase() != Phase::Ready {
            continue;
        }
        let diff_ids: Vec<String> = status
            .layers
            .iter()
            .map(|l| &l.diff_id)
            .filter(|d| layers.contains(d.as_str()) && wanted(d))
            .cloned()
            .collect();
        let image_digests: Vec<String> =
            status.images.iter().filter(|d| images.contains(d.as_str()) && wanted(d)).cloned().collect();
        if !diff_ids.is_empty() || !image_digests.is_empty() {
            holders.push(Holder { node: name, address, diff_ids, image_digests });
        }
    }
    Ok(LocateResponse { holders, images: named(snapshot, &request.image_names) })
}

/// What names of images mean in the cluster, for nodes that build on them.
fn named(snapshot: &Snapshot, names: &[String]) -> Vec<ImportedImage> {
    let known = names.iter().filter_map(|name| {
        let object = snapshot.get(&Key::new(Kind::Image, "", name))?;
        let Some(object::Kind::Image(image)) = &object.kind else { return None };
        Some(ImportedImage { name: name.clone(), image: image.spec.clone() })
    });
    known.collect()
}

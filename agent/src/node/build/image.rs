//! Images that builds begin with: what the cluster calls so, else what a registry does.

use super::super::Node;
use std::sync::Arc;
use strata_image::{ProgressSink, Sources, StoredImage};
use strata_model::{ImageName, Layer, PinnedImage};
use strata_peer::AskController;
use strata_proto::{cluster::LocateRequest, types::ImageSpec};

/// Makes an image be here.
pub(super) async fn ensure(
    node: &Node,
    controller: &dyn AskController,
    name: &ImageName,
    fresh: bool,
) -> Result<Arc<StoredImage>, String> {
    let request = LocateRequest { image_names: vec![name.to_string()], ..LocateRequest::default() };
    let answer = controller.locate(request).await;
    let answer = answer.map_err(|e| format!("asking the controller what {name} is failed: {}", e.message()))?;
    let known = answer.images.into_iter().next().and_then(|image| image.image);
    let progress = ProgressSink::silent();
    let images = node.image_store();
    let ensured = match known {
        // What was imported or built is nowhere else.
        Some(spec) if !fresh || !spec.from_registry => {
            let image = pinned(name, &spec)?;
            let registry = image.from_registry.then(|| Arc::new(node.registry().source(&image.name)) as _);
            images.ensure(&image, &Sources { peers: node.peers(), registry }, &progress).await
        }
        _ => images.pull(node.registry(), name, node.peers(), &progress).await.map(|(_, stored)| stored),
    };
    node.inventory_changed();
    ensured.map_err(|error| error.to_string())
}

fn pinned(name: &ImageName, spec: &ImageSpec) -> Result<PinnedImage, String> {
    let bad = |why: &dyn std::fmt::Display| format!("what the cluster says of image {name} cannot be read: {why}");
    let layers = spec.layers.iter().map(|layer| {
        let diff_id = layer.diff_id.parse().map_err(|e| bad(&e))?;
        Ok(Layer { diff_id, size_bytes: layer.size_bytes })
    });
    Ok(PinnedImage {
        name: name.clone(),
        digest: spec.digest.parse().map_err(|e| bad(&e))?,
        from_registry: spec.from_registry,
        layers: layers.collect::<Result<_, String>>()?,
    })
}

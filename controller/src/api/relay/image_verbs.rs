//! What people do with images that the cluster has: other names, archives, pushes, history, and removing those that nobody needs.

use super::{BoxStream, outward, permit};
use crate::{
    api::{ApiState, Refusal, images, limits, node_clients::NodeApi, select},
    objects::{image_spec, meta, template_images, template_spec},
};
use futures::{StreamExt as _, stream};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};
use strata_model::ImageName;
use strata_proto::{
    cluster::{
        ExportImagesRequest, ImageHistoryRequest, NodePruned, PruneImagesRequest, PruneImagesResponse,
        PushImageRequest, TagImageRequest, TagImageResponse,
    },
    node::{self, DataChunk, ExportImageRequest, ExportedImage, ImageHistoryResponse, PruneRequest, PushProgress},
    types::{Kind, Object, object},
};
use strata_store::{Change, Condition, Key, Snapshot};
use tonic::{Code, Status};

/// Gives an image another name. One that had the name before loses it.
pub async fn tag(state: &ApiState, request: TagImageRequest) -> Result<TagImageResponse, Status> {
    let snapshot = state.store.snapshot();
    let image = find(&snapshot, &request.image)?;
    let name = ImageName::parse(&request.name).map_err(|e| Refusal::invalid(e.to_string()))?;
    if name.digest().is_some() {
        return Err(Refusal::invalid(format!("{name}: a new name has a tag, not a digest")).into());
    }
    let mut spec = image_spec(&image).cloned().unwrap_or_default();
    // Under another repository no registry has it: then only nodes do.
    let old = ImageName::parse(&meta(&image).name).ok();
    let same = old.is_some_and(|o| o.registry() == name.registry() && o.repository() == name.repository());
    spec.from_registry &= same;
    let tagged = images::record_image(&state.store, &name.to_string(), spec, "").await?;
    Ok(TagImageResponse { image: Some(tagged) })
}

/// One archive of one or more images, from a node that has them all.
pub async fn export(state: &ApiState, request: ExportImagesRequest) -> Result<BoxStream<DataChunk>, Status> {
    let permit = permit(state)?;
    let snapshot = state.store.snapshot();
    let images = request.images.iter().map(|name| find(&snapshot, name)).collect::<Result<Vec<_>, _>>()?;
    let api = holder(state, &snapshot, &images).await?;
    let exported = |image: &Arc<Object>| ExportedImage { name: meta(image).name.clone(), digest: digest_of(image) };
    let asked = ExportImageRequest { images: images.iter().map(exported).collect(), format: request.format };
    let mut client = api.client.clone();
    let stream = api.answer(limits::NODE_ANSWER_TIMEOUT, client.export_image(asked)).await?.into_inner();
    Ok(outward(api, stream, permit))
}

/// To a registry, from a node that has it.
pub async fn push(state: &ApiState, request: PushImageRequest) -> Result<BoxStream<PushProgress>, Status> {
    let permit = permit(state)?;
    let snapshot = state.store.snapshot();
    let image = find(&snapshot, &request.image)?;
    let name = meta(&image).name.clone();
    let reference = if request.reference.is_empty() { name.clone() } else { request.reference };
    ImageName::parse(&reference).map_err(|e| Refusal::invalid(e.to_string()))?;
    let api = holder(state, &snapshot, std::slice::from_ref(&image)).await?;
    let asked = node::PushImageRequest { digest: digest_of(&image), reference, name };
    let mut client = api.client.clone();
    let stream = api.answer(limits::NODE_ANSWER_TIMEOUT, client.push_image(asked)).await?.into_inner();
    Ok(outward(api, stream, permit))
}

/// How an image came about.
pub async fn history(state: &ApiState, request: ImageHistoryRequest) -> Result<ImageHistoryResponse, Status> {
    let snapshot = state.store.snapshot();
    let image = find(&snapshot, &request.image)?;
    let api = holder(state, &snapshot, std::slice::from_ref(&image)).await?;
    let asked = node::ImageHistoryRequest { digest: digest_of(&image) };
    let mut client = api.client.clone();
    Ok(api.answer(limits::NODE_ANSWER_TIMEOUT, client.image_history(asked)).await?.into_inner())
}

/// Removes from every node what nobody needs: images without a name that no template names, and with `all` also those whose name nobody uses.
pub async fn prune(state: &ApiState, request: PruneImagesRequest) -> Result<PruneImagesResponse, Status> {
    let _permit = permit(state)?;
    let mut removed = Vec::new();
    if request.all {
        let snapshot = state.store.snapshot();
        let used = used(&snapshot);
        for image in snapshot.list(Kind::Image, None) {
            if used.digests.contains(&digest_of(&image)) || used.names.contains(&meta(&image).name) {
                continue;
            }
            let change = Change::delete(Key::of(&image), Condition::Revision(meta(&image).revision));
            // Somebody who was faster begins to use it, or has removed it.
            if state.commit(vec![change]).await.is_ok() {
                removed.push(meta(&image).name.clone());
            }
        }
    }
    let snapshot = &state.store.snapshot();
    let mut keep = used(snapshot).digests;
    keep.extend(snapshot.list(Kind::Image, None).map(|o| digest_of(&o)));
    keep.remove("");
    let keep: Vec<String> = keep.into_iter().collect();
    let keep = &keep;
    let mut nodes: Vec<NodePruned> = stream::iter(select::ready_nodes(snapshot))
        .map(|name| async move {
            let asked = PruneRequest { keep_images: keep.clone(), build_cache: request.build_cache };
            let done = async {
                let api = state.nodes.of(snapshot, &name).await?;
                let mut client = api.client.clone();
                Ok::<_, Status>(api.answer(limits::PRUNE_TIMEOUT, client.prune(asked)).await?.into_inner())
            };
            match done.await {
                Ok(done) => NodePruned {
                    node: name,
                    freed_bytes: done.freed_bytes,
                    layers: u32::try_from(done.removed_layers.len()).unwrap_or(u32::MAX),
                    error: String::new(),
                },
                Err(status) => NodePruned { node: name, error: status.message().to_owned(), ..NodePruned::default() },
            }
        })
        .buffer_unordered(limits::NODES_AT_ONCE)
        .collect()
        .await;
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(PruneImagesResponse { nodes, images: removed })
}

/// What pods need or will need.
struct Used {
    digests: HashSet<String>,
    names: HashSet<String>,
}

/// Every revision that is still known counts: a rollout may go back to it. So do names whose digest is not known yet.
fn used(snapshot: &Snapshot) -> Used {
    let mut used = Used { digests: HashSet::new(), names: HashSet::new() };
    for template in snapshot.list(Kind::Template, None) {
        used.digests.extend(template_spec(&template).into_iter().flat_map(|t| &t.images).map(|i| i.digest.clone()));
    }
    for object in snapshot.list(Kind::Workload, None).chain(snapshot.list(Kind::Pod, None)) {
        let names = template_images(&object).filter_map(|name| ImageName::parse(name).ok());
        used.names.extend(names.map(|name| name.to_string()));
    }
    used
}

fn digest_of(image: &Object) -> String {
    image_spec(image).map(|s| s.digest.clone()).unwrap_or_default()
}

/// The image with this name.
fn find(snapshot: &Snapshot, name: &str) -> Result<Arc<Object>, Refusal> {
    let name = ImageName::parse(name).map_err(|e| Refusal::invalid(e.to_string()))?.to_string();
    let key = Key::new(Kind::Image, "", name);
    snapshot.get(&key).ok_or_else(|| Refusal::not_found(&key))
}

/// A ready node that has all of these images.
async fn holder(state: &ApiState, snapshot: &Snapshot, images: &[Arc<Object>]) -> Result<NodeApi, Status> {
    let having = |image: &Arc<Object>| -> BTreeSet<String> {
        match &image.kind {
            Some(object::Kind::Image(i)) => i.status.iter().flat_map(|s| &s.nodes).cloned().collect(),
            _ => BTreeSet::new(),
        }
    };
    let wanted: Vec<BTreeSet<String>> = images.iter().map(having).collect();
    let node = select::ready_nodes(snapshot).into_iter().find(|n| wanted.iter().all(|w| w.contains(n)));
    let node = node.ok_or_else(|| {
        let names: Vec<&str> = images.iter().map(|i| meta(i).name.as_str()).collect();
        let message = format!(
            "no ready node has all of {}: wait until a node that has it is Ready, or get it with `ctl image pull`",
            names.join(", ")
        );
        Refusal::new(Code::Unavailable, "ImageNowhere", message)
    })?;
    Ok(state.nodes.of(snapshot, &node).await?)
}

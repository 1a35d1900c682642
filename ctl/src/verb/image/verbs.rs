//! The verbs of images beyond looking at them: tag, history, export, push, prune.

use super::find;
use crate::{
    amount::short_bytes, exit::Failure, kind::stored_name, output, progress::Progress, session::Session, table::Table,
};
use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
};
use strata_client::Client;
use strata_proto::{
    node::{PushProgress, export_image_request::Format},
    types::Kind,
};

/// Characters of a step that a table shows.
const STEP_CHARS: usize = 60;

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ArchiveFormat {
    /// An OCI layout as a tar
    #[default]
    Oci,
    /// What `docker load` takes
    Docker,
}

async fn name_of(session: &Session, image: &str) -> Result<String, Failure> {
    Ok(find(session, image).await?.meta.map(|meta| meta.name).unwrap_or_default())
}

pub async fn tag(session: &Session, image: &str, name: &str) -> Result<(), Failure> {
    let (image, name) = (name_of(session, image).await?, stored_name(Kind::Image, name)?);
    session.client.tag_image(&image, &name).await?;
    output::print(&format!("image/{name} is {image}\n"))
}

pub async fn history(session: &Session, image: &str, json: bool) -> Result<(), Failure> {
    let mut entries = session.client.image_history(&name_of(session, image).await?).await?;
    // The newest first, as docker shows it.
    entries.reverse();
    if json {
        let entries = entries.iter().map(|e| {
            serde_json::json!({
                "created": e.created, "createdBy": e.created_by, "comment": e.comment, "emptyLayer": e.empty_layer,
                "diffId": e.diff_id, "sizeBytes": e.size_bytes.to_string(),
            })
        });
        let text = serde_json::to_string_pretty(&serde_json::Value::Array(entries.collect()));
        return output::print(&(text.map_err(|e| Failure::failed(format!("cannot write JSON: {e}")))? + "\n"));
    }
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|e| {
            let step: String = e.created_by.split_whitespace().collect::<Vec<_>>().join(" ");
            let short: String = step.chars().take(STEP_CHARS).collect();
            let step = if step.chars().count() > STEP_CHARS { short + "…" } else { short };
            let layer = e.diff_id.split_once(':').map_or("", |(_, hex)| hex).chars().take(12).collect();
            let size = if e.empty_layer { "0".into() } else { short_bytes(e.size_bytes) };
            vec![e.created.chars().take(19).collect(), layer, size, step, e.comment.clone()]
        })
        .collect();
    output::print(&Table::new(vec!["CREATED", "LAYER", "SIZE", "STEP", "COMMENT"]).render(&rows))
}

pub async fn export(session: &Session, images: &[String], file: &str, format: ArchiveFormat) -> Result<(), Failure> {
    let mut names = Vec::with_capacity(images.len());
    for image in images {
        names.push(name_of(session, image).await?);
    }
    let format = match format {
        ArchiveFormat::Oci => Format::Oci,
        ArchiveFormat::Docker => Format::Docker,
    };
    if file == "-" && std::io::stdout().is_terminal() {
        return Err(Failure::usage("an archive is no text for a terminal: give a file (-o FILE) or a pipe"));
    }
    let doing = format!("export {}", names.join(", "));
    let mut chunks = session.client.export_images(names, format).await?;
    let cannot = |error| Failure::failed(format!("cannot write {file}: {error}"));
    // Nobody takes half an archive for a whole one: it gets its name at the end.
    let partial = format!("{file}.partial");
    let mut out = if file == "-" { None } else { Some(std::fs::File::create(&partial).map_err(cannot)?) };
    let progress = Progress::bytes_so_far("export");
    let mut written = 0;
    let copied = async {
        while let Some(chunk) = chunks.message().await.map_err(|status| Client::stream_error(&doing, &status))? {
            match &mut out {
                Some(file) => file.write_all(&chunk.data).map_err(cannot)?,
                None => output::print_bytes(&chunk.data)?,
            }
            written += chunk.data.len() as u64;
            progress.set(written, 0);
        }
        Ok::<(), Failure>(())
    };
    let copied = copied.await;
    drop(progress);
    if out.is_some() {
        if copied.is_ok() {
            std::fs::rename(&partial, file).map_err(cannot)?;
            output::talk(&format!("{} written to {file}", short_bytes(written)));
        } else {
            // What is left says by its name that it is no archive; a failure to remove it changes nothing.
            drop(std::fs::remove_file(&partial));
        }
    }
    copied
}

pub async fn push(session: &Session, image: &str, reference: &str) -> Result<(), Failure> {
    let name = name_of(session, image).await?;
    let reference = if reference.is_empty() { name.clone() } else { stored_name(Kind::Image, reference)? };
    let doing = format!("push image {name} as {reference}");
    let mut steps = session.client.push_image(&name, &reference).await?;
    let mut progress = Progress::bytes(&reference);
    let mut bytes: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut digest = String::new();
    while let Some(step) = steps.message().await.map_err(|status| Client::stream_error(&doing, &status))? {
        let PushProgress { blob, done_bytes, total_bytes, step, message, digest: done } = step;
        match step.as_str() {
            "Done" => digest = done,
            "Recompressed" => progress.say(&format!("{message}: blob {blob}")),
            "Present" => progress.say(&format!("{blob} is there already")),
            "Mounted" => progress.say(&format!("{blob} was mounted from another repository")),
            _ => {
                bytes.insert(blob, (done_bytes, total_bytes));
                let (sent, of) = bytes.values().fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
                progress.set(sent, of);
            }
        }
    }
    drop(progress);
    if digest.is_empty() {
        return Err(Failure::failed(format!("cannot {doing}: the cluster ended it before it was done")));
    }
    output::print(&format!("{reference}@{digest}\n"))
}

pub async fn prune(session: &Session, all: bool, build_cache: bool) -> Result<(), Failure> {
    let pruned = session.client.prune_images(all, build_cache).await?;
    for image in &pruned.images {
        output::print(&format!("image/{image} removed\n"))?;
    }
    let rows: Vec<Vec<String>> = pruned
        .nodes
        .iter()
        .map(|n| {
            vec![
                n.node.clone(),
                n.layers.to_string(),
                short_bytes(n.freed_bytes),
                n.freed_bytes.to_string(),
                n.error.clone(),
            ]
        })
        .collect();
    output::print(&Table::new(vec!["NODE", "LAYERS", "FREED", "BYTES", "ERROR"]).render(&rows))?;
    let failed: Vec<&str> = pruned.nodes.iter().filter(|n| !n.error.is_empty()).map(|n| n.node.as_str()).collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::failed(format!("not pruned everywhere: {}", failed.join(", "))))
    }
}

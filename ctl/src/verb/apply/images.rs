//! The images that services of a Compose file want built: those that the cluster lacks, or all of them when asked for.

use crate::{
    exit::Failure,
    kind::stored_name,
    manifests::Manifest,
    output::talk,
    session::Session,
    verb::build::{self, Text},
};
use std::{collections::BTreeSet, path::Path};
use strata_client::ErrorKind;
use strata_proto::types::Kind;

/// Builds what is missing; with `all` also what the cluster has.
pub async fn build(session: &Session, manifests: &[Manifest], all: bool) -> Result<(), Failure> {
    let mut done = BTreeSet::new();
    for wanted in manifests.iter().filter_map(|manifest| manifest.build.as_ref()) {
        let name = stored_name(Kind::Image, &wanted.image)?;
        if !done.insert(name.clone()) || (!all && is_there(session, &name).await?) {
            continue;
        }
        talk(&format!("building {} from {}", wanted.image, wanted.context));
        let dir = Path::new(&wanted.context);
        let args = build::Args {
            tag: wanted.image.clone(),
            // As in Compose: relative to the context.
            file: wanted.dockerfile.as_ref().map(|file| dir.join(file)),
            build_arg: wanted.args.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            target: wanted.target.clone().unwrap_or_default(),
            no_cache: false,
            pull: false,
            label: Vec::new(),
            node: String::new(),
            quiet: false,
            dir: dir.to_owned(),
        };
        let text = wanted.dockerfile_inline.clone().map_or(Text::OfFile, Text::Given);
        let digest = build::image(&args, text, session).await?;
        talk(&format!("{} is {digest}", wanted.image));
    }
    Ok(())
}

async fn is_there(session: &Session, name: &str) -> Result<bool, Failure> {
    match session.client.get(Kind::Image, "", name).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

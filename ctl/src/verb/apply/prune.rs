//! Deleting what an earlier apply of a set made and the files no longer have.

use crate::{
    exit::Failure,
    kind::namespace_for,
    manifests::{APPLIED_BY, PRUNED, Set},
    output,
    session::Session,
};
use strata_client::{ErrorKind, Selection};
use strata_proto::types::{Kind, Object};

/// Deletes, or with `dry_run` says, what the set lacks; `done` gets a word for each.
pub async fn perform(
    session: &Session,
    set: &Set,
    dry_run: bool,
    done: &mut Vec<(Object, &'static str)>,
) -> Result<(), Failure> {
    for object in lacking(session, set).await? {
        if object.kind_of() == Kind::Volume {
            let name = output::name_line(&object);
            output::talk(&format!(
                "{name} is no longer in the files, but has data: delete it with `ctl delete {name}`"
            ));
            continue;
        }
        if dry_run {
            done.push((object, "would be pruned (server dry run)"));
            continue;
        }
        let meta = object.meta.clone().unwrap_or_default();
        match session.client.delete(object.kind_of(), &meta.namespace, &meta.name, 0, false).await {
            Ok(_) => done.push((object, "pruned")),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Workloads first: what they use goes after them.
async fn lacking(session: &Session, set: &Set) -> Result<Vec<Object>, Failure> {
    let mut found = Vec::new();
    for kind in PRUNED.into_iter().chain([Kind::Volume]) {
        for namespace in &set.namespaces {
            for name in &set.names {
                let labels = [(APPLIED_BY.to_owned(), name.clone())].into();
                let namespace = namespace_for(kind, namespace).to_owned();
                let listing = session.client.list(kind, &Selection { namespace, labels, ended: false }).await?;
                found.extend(listing.objects.into_iter().filter(|object| set.lacks(object)));
            }
        }
    }
    Ok(found)
}

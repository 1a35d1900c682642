//! Apply, get, list, delete.

use crate::{Client, ClientError, ErrorKind, limits, unary};
use std::collections::HashMap;
use strata_proto::{
    cluster::{ApplyRequest, DeleteRequest, GetRequest, ListRequest, apply_response::Outcome},
    document::kind_word,
    types::{Kind, Object},
};
use tokio::time::timeout;

/// What to do with an applied object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ApplyMode {
    /// Create it or replace its spec.
    #[default]
    Apply,
    /// Create it; a conflict if it exists.
    CreateOnly,
    /// Only validate it and say what would become of it.
    DryRun,
}

/// What an apply did.
#[derive(Debug, Clone)]
pub struct Applied {
    /// As it is now.
    pub object: Object,
    /// Created, configured or unchanged.
    pub outcome: Outcome,
    /// What the server wants people to know, although it was done.
    pub warnings: Vec<String>,
}

/// Which objects to list.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// "" = all namespaces.
    pub namespace: String,
    /// All must be equal.
    pub labels: HashMap<String, String>,
    /// Also pods that ended and are still known.
    pub ended: bool,
}

/// A list and the revision it shows; a watch from there misses nothing.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The store's revision.
    pub revision: u64,
    /// In the order of the server: by namespace and name.
    pub objects: Vec<Object>,
}

impl Client {
    /// Creates an object or replaces its spec; returns when the change is on disk. With `meta.revision` it is conditional.
    ///
    /// # Errors
    /// By kind; [`ErrorKind::Conflict`] if the condition does not hold.
    pub async fn apply(&self, object: Object, mode: ApplyMode) -> Result<Applied, ClientError> {
        let doing = format!("apply {}", name_of(&object));
        let request = ApplyRequest {
            object: Some(object),
            dry_run: mode == ApplyMode::DryRun,
            create_only: mode == ApplyMode::CreateOnly,
        };
        let mut objects = self.objects.clone();
        let answer = unary(&doing, limits::UNARY_TIMEOUT, request, |r| async move { objects.apply(r).await }).await?;
        let outcome = answer.outcome();
        let object = answer.object.ok_or_else(|| malformed(&doing))?;
        Ok(Applied { object, outcome, warnings: answer.warnings })
    }

    /// Gets one object. The namespace is "" for kinds that have none.
    ///
    /// # Errors
    /// By kind; [`ErrorKind::NotFound`] if it is not there.
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Object, ClientError> {
        let request = GetRequest { kind: kind.into(), namespace: namespace.into(), name: name.into() };
        let mut objects = self.objects.clone();
        let doing = format!("get {}", describe(kind, namespace, name));
        unary(&doing, limits::UNARY_TIMEOUT, request, |r| async move { objects.get(r).await }).await
    }

    /// Lists objects of a kind.
    ///
    /// # Errors
    /// By kind.
    pub async fn list(&self, kind: Kind, selection: &Selection) -> Result<Listing, ClientError> {
        let doing = format!("list {}s", kind_word(kind).to_lowercase());
        let request = ListRequest {
            kind: kind.into(),
            namespace: selection.namespace.clone(),
            labels: selection.labels.clone(),
            ended: selection.ended,
        };
        let mut objects = self.objects.clone();
        let mut portions =
            unary(&doing, limits::LIST_TIMEOUT, request, |r| async move { objects.list(r).await }).await?;
        let mut listing = Listing::default();
        loop {
            let next = timeout(limits::LIST_TIMEOUT, portions.message());
            match next.await {
                Ok(Ok(Some(portion))) => {
                    listing.revision = portion.revision;
                    listing.objects.extend(portion.objects);
                    if listing.objects.len() > limits::LIST_OBJECTS_MAX {
                        let why = format!("there are more than {}; select fewer", limits::LIST_OBJECTS_MAX);
                        return Err(ClientError::new(ErrorKind::Failed, doing, why));
                    }
                }
                Ok(Ok(None)) => return Ok(listing),
                Ok(Err(status)) => return Err(ClientError::from_status(&doing, &status)),
                Err(_) => return Err(ClientError::timed_out(&doing, limits::LIST_TIMEOUT)),
            }
        }
    }

    /// Deletes an object; what it owns goes first, so it may be seen for a while. `revision` is a condition unless 0;
    /// `force` deletes images that are in use.
    ///
    /// # Errors
    /// By kind.
    pub async fn delete(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        revision: u64,
        force: bool,
    ) -> Result<Object, ClientError> {
        let doing = format!("delete {}", describe(kind, namespace, name));
        let request =
            DeleteRequest { kind: kind.into(), namespace: namespace.into(), name: name.into(), revision, force };
        let mut objects = self.objects.clone();
        let answer = unary(&doing, limits::UNARY_TIMEOUT, request, |r| async move { objects.delete(r).await }).await?;
        answer.object.ok_or_else(|| malformed(&doing))
    }
}

fn malformed(doing: &str) -> ClientError {
    ClientError::new(
        ErrorKind::Failed,
        doing,
        "the answer lacks the object; do client and server fit? see `ctl version`",
    )
}

pub(crate) fn describe(kind: Kind, namespace: &str, name: &str) -> String {
    let kind = kind_word(kind).to_lowercase();
    if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
}

fn name_of(object: &Object) -> String {
    let meta = object.meta.as_ref();
    describe(object.kind_of(), meta.map_or("", |m| &m.namespace), meta.map_or("", |m| &m.name))
}

//! Waiting for objects to become what is wanted: level-triggered, over lists and watches that may break.

use crate::session::Session;
use std::{collections::BTreeMap, time::Duration};
use strata_client::{Change, ClientError, ErrorKind, Selection, Watch};
use strata_proto::types::{Kind, Meta, Object};
use tokio::time::{Instant, sleep, timeout_at};

/// The rests between attempts to list and watch again after a break.
const BACKOFF: Duration = Duration::from_millis(500);
/// Attempts in a row that may fail before the break is reported.
const ATTEMPTS_MAX: u32 = 60;

/// Every object of a kind, by namespace and name.
pub type World = BTreeMap<(String, String), Object>;

/// The key of an object in a [`World`].
pub fn key_of(object: &Object) -> (String, String) {
    meta_of(object).map(|meta| (meta.namespace.clone(), meta.name.clone())).unwrap_or_default()
}

/// The metadata, which every object from a server has.
pub fn meta_of(object: &Object) -> Option<&Meta> {
    object.meta.as_ref()
}

/// Shows the objects of a kind to `look`, as they are and after each change, until it finds what it looks for. `None`: the deadline has passed.
pub async fn until<T>(
    session: &Session,
    kind: Kind,
    namespace: &str,
    deadline: Instant,
    mut look: impl FnMut(&World) -> Option<T>,
) -> Result<Option<T>, ClientError> {
    let mut failures = 0;
    loop {
        let error = match follow(session, kind, namespace, deadline, &mut look).await {
            Ok(outcome) => return Ok(outcome),
            Err(Broken { error, had_begun }) => {
                failures = if had_begun { 1 } else { failures + 1 };
                let goes_on = had_begun || failures > 1 || error.kind == ErrorKind::Compacted;
                if !goes_on || !is_break(&error) || failures >= ATTEMPTS_MAX {
                    return Err(error);
                }
                error
            }
        };
        if error.kind != ErrorKind::Compacted {
            let wake = (Instant::now() + BACKOFF).min(deadline);
            sleep(wake.saturating_duration_since(Instant::now())).await;
            if wake == deadline {
                return Ok(None);
            }
        }
    }
}

struct Broken {
    error: ClientError,
    /// Whether the watch stood: the break is new.
    had_begun: bool,
}

async fn follow<T>(
    session: &Session,
    kind: Kind,
    namespace: &str,
    deadline: Instant,
    look: &mut impl FnMut(&World) -> Option<T>,
) -> Result<Option<T>, Broken> {
    let (mut world, mut watch) =
        begin(session, kind, namespace).await.map_err(|error| Broken { error, had_begun: false })?;
    loop {
        if let Some(found) = look(&world) {
            return Ok(Some(found));
        }
        match timeout_at(deadline, watch.next()).await {
            Err(_) => return Ok(None),
            Ok(Err(error)) => return Err(Broken { error, had_begun: true }),
            Ok(Ok(Change { object, deleted, .. })) => {
                if deleted {
                    world.remove(&key_of(&object));
                } else {
                    world.insert(key_of(&object), object);
                }
            }
        }
    }
}

async fn begin(session: &Session, kind: Kind, namespace: &str) -> Result<(World, Watch), ClientError> {
    let selection = Selection { namespace: namespace.to_owned(), ended: true, ..Default::default() };
    let listing = session.client.list(kind, &selection).await?;
    // Revision 0 is that of a store nothing was ever written to; a watch "from 0" would mean from now, which is the same.
    let watch = session.client.watch(kind, namespace, listing.revision).await?;
    Ok((listing.objects.into_iter().map(|object| (key_of(&object), object)).collect(), watch))
}

/// Whether listing again may help.
pub fn is_break(error: &ClientError) -> bool {
    matches!(error.kind, ErrorKind::Compacted | ErrorKind::Unreachable | ErrorKind::TimedOut)
}

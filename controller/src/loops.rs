//! The control loops: observe a snapshot, plan, commit, wait. An event only wakes a loop and says where to look; the snapshot is the truth.
//!
//! Work scales with what changed: every loop keeps the set of keys it still has to look at. What fails stays in the set.

pub mod cleanup;
pub mod dispatch;
mod feed;
pub mod holders;
pub mod images;
pub mod nodes;
pub mod orchestrate;
pub mod removal;
pub mod schedule;
pub mod services;

pub use feed::{BATCH_MAX, Batch, Feed};

use crate::control::Control;
use std::{sync::Arc, time::Duration};
use strata_store::StoreError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// How long a loop waits before it tries again what a conflict or a full disk prevented.
pub const RETRY: Duration = Duration::from_millis(20);
/// The same after the disk was full.
pub const RETRY_FULL: Duration = Duration::from_secs(1);

/// Runs all loops until `stop` is cancelled or one of them cannot go on; then all end. [`nodes::begin`] comes before, and before
/// any agent is served.
///
/// # Errors
/// The store's error that ended a loop.
pub async fn run(control: Arc<Control>, stop: CancellationToken) -> Result<(), StoreError> {
    let mut tasks: JoinSet<(&'static str, Result<(), StoreError>)> = JoinSet::new();
    macro_rules! start {
        ($($name:ident),+) => {$(
            let c = control.clone();
            tasks.spawn(async move {
                let run = $name::run(c.clone());
                (stringify!($name), c.meters.measured(stringify!($name), run).await)
            });
        )+};
    }
    start!(images, orchestrate, schedule, dispatch, nodes, removal, holders, cleanup);
    let ended = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        ended = tasks.join_next() => ended,
    };
    // Dropping the set ends the others.
    match ended {
        Some(Ok((_, Ok(())))) | None => Ok(()),
        Some(Ok((name, Err(error)))) => {
            error!(control_loop = name, %error, "a control loop cannot go on");
            Err(error)
        }
        Some(Err(error)) => {
            error!(%error, "a control loop crashed");
            Err(StoreError::Closed)
        }
    }
}

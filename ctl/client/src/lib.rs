//! The typed client of a Strata cluster: what `ctl`, tests and third parties use.
//!
//! Flows in: a [`Config`] (which controller, with which certificate). Flows out: objects, streams, and errors of a [`ErrorKind`].
//!
//! Not here: terminals, tables, manifests, retries of changes: whether to try again is the caller's decision.
//!
//! Invariants: every unary call has a deadline ([`limits`]); every error says what was being done and to what.

mod act;
mod backup;
mod build;
mod change;
mod config;
mod error;
mod files;
mod forward;
mod images;
pub mod limits;
mod objects;
mod streams;

pub use act::Act;
pub use build::{BuildSession, BuildStart, ContextPiece};
pub use change::{Change, Watch};
pub use config::{Config, ConfigError, Context};
pub use error::{ClientError, ErrorKind};
pub use files::ContainerRef;
pub use forward::ForwardInput;
pub use images::CommitOptions;
pub use objects::{Applied, ApplyMode, Listing, Selection};
pub use strata_proto::cluster::{InfoResponse, apply_response::Outcome};
pub use strata_transport::install_crypto;
pub use streams::{ExecInput, ExecSession, ExecStart, LogOptions};

use std::{future::Future, time::Duration};
use strata_proto::cluster::{cluster_client::ClusterClient, objects_client::ObjectsClient};
use strata_transport::{CONTROLLER_SERVER_NAME, client};
use tonic::{Request, Response, Status, transport::Channel};

/// A connection to a cluster's controller. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    objects: ObjectsClient<Channel>,
    cluster: ClusterClient<Channel>,
}

impl Client {
    /// Connects to the first of a context's endpoints that answers.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if none answers, [`ErrorKind::NotAllowed`] if one refuses the certificate.
    pub async fn connect(context: &Context) -> Result<Self, ClientError> {
        let identity = context.identity();
        let mut last = None;
        for endpoint in &context.endpoints {
            match client::channel(endpoint, &identity, CONTROLLER_SERVER_NAME).await {
                Ok(channel) => return Ok(Self::over(channel)),
                Err(error) => {
                    let error = ClientError::from_transport("connect to the controller", &error);
                    // A refusal is an answer: the other endpoints belong to the same cluster.
                    if error.kind == ErrorKind::NotAllowed {
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            ClientError::new(ErrorKind::Unreachable, "connect to the controller", "the context names no endpoint")
        }))
    }

    /// Speaks over a channel that exists.
    #[must_use]
    pub fn over(channel: Channel) -> Self {
        Self { objects: ObjectsClient::new(channel.clone()), cluster: ClusterClient::new(channel) }
    }

    /// Asks what the cluster is: version, API level, revision.
    ///
    /// # Errors
    /// By kind.
    pub async fn info(&self) -> Result<InfoResponse, ClientError> {
        let mut cluster = self.cluster.clone();
        let request = strata_proto::cluster::InfoRequest {};
        let doing = "ask the cluster for its version";
        unary(doing, limits::UNARY_TIMEOUT, request, |r| async move { cluster.info(r).await }).await
    }

    /// Makes an earlier revision of a workload its newest; `number` 0 is the one before the present.
    ///
    /// # Errors
    /// By kind; [`ErrorKind::NotFound`] if there is no such workload or revision.
    pub async fn undo(
        &self,
        namespace: &str,
        workload: &str,
        number: u64,
    ) -> Result<strata_proto::types::Object, ClientError> {
        let request =
            strata_proto::cluster::UndoRequest { namespace: namespace.into(), workload: workload.into(), number };
        let mut cluster = self.cluster.clone();
        let doing = format!("take workload {namespace}/{workload} back");
        let answer = unary(&doing, limits::UNARY_TIMEOUT, request, |r| async move { cluster.undo(r).await }).await?;
        answer.object.ok_or_else(|| ClientError::new(ErrorKind::Failed, doing, "the answer lacks the object"))
    }

    /// Makes a join token. `ttl` 0 and `uses` 0 leave the choice to the controller.
    ///
    /// # Errors
    /// By kind.
    pub async fn create_token(&self, ttl: Duration, uses: u32) -> Result<String, ClientError> {
        let ttl_s = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
        let request = strata_proto::cluster::CreateTokenRequest { ttl_s, uses };
        let mut cluster = self.cluster.clone();
        let answer =
            unary(
                "create a join token",
                limits::UNARY_TIMEOUT,
                request,
                |r| async move { cluster.create_token(r).await },
            );
        Ok(answer.await?.token)
    }
}

/// Makes one call under a deadline that the server learns too.
pub(crate) async fn unary<T, R, F>(
    doing: &str,
    deadline: Duration,
    message: T,
    call: impl FnOnce(Request<T>) -> F,
) -> Result<R, ClientError>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    // What the server does belongs to the trace of the caller, if there is one.
    let trace = strata_telemetry::trace_parent(&tracing::Span::current());
    if let Ok(value) = trace.parse()
        && !trace.is_empty()
    {
        request.metadata_mut().insert(strata_telemetry::TRACE_PARENT_KEY, value);
    }
    match tokio::time::timeout(deadline, call(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(ClientError::from_status(doing, &status)),
        Err(_) => Err(ClientError::timed_out(doing, deadline)),
    }
}

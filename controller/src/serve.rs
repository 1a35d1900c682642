//! Starting everything on one port, and ending it in order: sessions, streams, loops, store.

use crate::{
    api::{self, ApiState, Pki},
    config::{Config, ConfigError},
    control::{ClusterSettings, Control},
    loops, metrics,
    secrets::{Vault, VaultError},
    sessions::{AGENT_MESSAGE_BYTES_MAX, DispatchService},
};
use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use strata_proto::dispatch::dispatch_server::DispatchServer;
use strata_store::{Store, StoreError, backend};
use strata_transport::{
    Role, TransportError,
    authorize::RequireRole,
    server::{self, ClientCerts, tune_server},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tracing::info;

/// How long open streams get to end when the controller does.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// Why the controller does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificates, or the port.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The store.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// Another controller works with the same directory.
    #[error("another controller uses {path}: stop it first, or set another state_dir")]
    InUse {
        /// The state directory.
        path: PathBuf,
    },
    /// The state directory cannot be used.
    #[error("cannot {action} {path}: {source}")]
    Directory {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The join token.
    #[error("the bootstrap token: {0}")]
    Token(String),
    /// The key of the secrets.
    #[error(transparent)]
    Secrets(#[from] VaultError),
    /// The port of the metrics.
    #[error("cannot listen on {address} for metrics: {source}; choose another address with `metrics_listen`")]
    Metrics {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The server.
    #[error("serving failed: {0}")]
    Serve(String),
}

/// Locks the state directory against a second controller, making it if it is not there. The lock goes with the value, or the process.
///
/// # Errors
/// [`ServeError::InUse`], [`ServeError::Directory`].
pub fn lock_state(state_dir: &Path) -> Result<File, ServeError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| ServeError::Directory { action, path, source }
    };
    std::fs::create_dir_all(state_dir).map_err(failed("make the directory", state_dir))?;
    let path = state_dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ServeError::InUse { path: state_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}

/// What is read before anything is served.
pub struct State {
    /// The objects.
    pub store: Store,
    /// The cluster's certificates.
    pub pki: Pki,
}

/// Opens the store and the certificates below the state directory.
///
/// # Errors
/// [`ServeError`].
pub async fn open(config: &Config) -> Result<State, ServeError> {
    let state_dir = config.state_dir.clone();
    let opened = tokio::task::spawn_blocking(move || -> Result<State, ServeError> {
        let pki_dir = state_dir.join("pki");
        std::fs::create_dir_all(&pki_dir).map_err(|source| ServeError::Directory {
            action: "make the directory",
            path: pki_dir,
            source,
        })?;
        let pki = Pki::open(&state_dir)?;
        let backend = backend::Sled::open(state_dir.join("store"))
            .map_err(|e| ServeError::Store(StoreError::Open(Arc::new(e))))?;
        Ok(State { store: Store::open(Box::new(backend))?, pki })
    });
    opened.await.map_err(|e| ServeError::Serve(e.to_string()))?
}

/// Serves until `stop` is cancelled, the store fails or a loop cannot go on. Then everything is ended in order and the store is closed.
///
/// # Errors
/// Why it ended, unless it was told to.
pub async fn serve(
    state: State,
    config: &Config,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let store = state.store.clone();
    let settings = ClusterSettings {
        cluster_id: state.pki.cluster_id().to_owned(),
        cluster_cidr: config.cluster_range()?,
        node_prefix_len: config.node_prefix_len,
        service_cidr: config.service_range()?,
        leases: config.leases(),
    };
    let address = listener.local_addr().map_err(|e| ServeError::Serve(e.to_string()))?;
    let vault = Arc::new(Vault::open(&config.state_dir, &store.snapshot())?);
    api::ensure_default_namespace(&store).await?;
    state.pki.ensure_admin_context(&config.state_dir, &config.endpoint(address))?;
    let token = api::ensure_bootstrap_token(&store, &state.pki, &config.state_dir).await;
    token.map_err(|e| ServeError::Token(e.to_string()))?;
    let metrics_listener = metrics::listen(config.metrics_listen).await?;
    let identity = state.pki.controller_identity()?;
    let control = Arc::new(Control::new(store.clone(), settings, vault.clone()));
    let range = config.service_range()?;
    let api_state = Arc::new(ApiState::new(store.clone(), state.pki, vault)?.with_service_range(range));
    loops::nodes::begin(&control).await?;
    let incoming = server::serve(listener, &identity, ClientCerts::Optional, stop.clone().cancelled_owned())?;
    let routes = control.requests.around(routes(&api_state, &control).await?);
    info!(%address, state_dir = %config.state_dir.display(), "serving");
    let quit = stop.clone();
    let serving = tune_server(tonic::transport::Server::builder())
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, quit.cancelled_owned());
    let serving = tokio::spawn(serving);
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = loops::run(control.clone(), stop.clone()) => ended.map_err(ServeError::from),
        ended = api::remove_deleted_volumes(api_state.clone()) => ended.map_err(ServeError::from),
        error = store.failed() => Err(ServeError::Store(error)),
        error = metrics::serve(metrics_listener, control.clone()) => Err(ServeError::Serve(error)),
    };
    stop.cancel();
    control.sessions.end_all();
    let abort = serving.abort_handle();
    let served = match tokio::time::timeout(SHUTDOWN_GRACE, serving).await {
        Ok(Ok(result)) => result.map_err(|e| ServeError::Serve(e.to_string())),
        Ok(Err(error)) => Err(ServeError::Serve(error.to_string())),
        Err(_) => {
            abort.abort();
            Ok(())
        }
    };
    store.close().await;
    ended.and(served)
}

async fn routes(api_state: &Arc<ApiState>, control: &Arc<Control>) -> Result<tonic::service::Routes, ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let dispatch =
        DispatchServer::new(DispatchService::new(control.clone())).max_decoding_message_size(AGENT_MESSAGE_BYTES_MAX);
    health.set_serving::<DispatchServer<DispatchService>>().await;
    for service in ["strata.cluster.v1.Objects", "strata.cluster.v1.Cluster", "strata.cluster.v1.Join"] {
        health.set_service_status(service, tonic_health::ServingStatus::Serving).await;
    }
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(strata_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| ServeError::Serve(format!("reflection: {e}")))?;
    Ok(api::services(api_state)
        .add_service(InterceptedService::new(dispatch, RequireRole(&[Role::Node])))
        .add_service(health_service)
        .add_service(InterceptedService::new(reflection, RequireRole(&[Role::Admin]))))
}

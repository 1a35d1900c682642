//! A controller on a port of its own.

use std::{sync::Arc, time::Duration};
use strata_controller::{
    api::Pki,
    config::Config,
    control::{ClusterSettings, Control},
    serve::{self, State},
};
use strata_proto::{
    cluster::{ApplyRequest, DeleteRequest, objects_client::ObjectsClient},
    dispatch::{AgentMessage, dispatch_client::DispatchClient},
    types::{self, Kind, Object, object},
};
use strata_store::{Key, Snapshot, Store, backend};
use strata_transport::{CONTROLLER_SERVER_NAME, Identity, Role, client};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub store: Store,
    pub address: String,
    dir: tempfile::TempDir,
    pki: Pki,
    config: Config,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), serve::ServeError>>,
}

impl Cluster {
    pub async fn start(lease_ms: u64) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), lease_ms, false).await
    }

    pub async fn start_on_disk(lease_ms: u64) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), lease_ms, true).await
    }

    async fn start_in(dir: tempfile::TempDir, lease_ms: u64, on_disk: bool) -> Self {
        strata_transport::install_crypto();
        let text = format!(
            "state_dir = {:?}\nlisten = \"127.0.0.1:0\"\nheartbeat_ms = {}\nlease_ms = {lease_ms}",
            dir.path(),
            lease_ms / 4
        );
        let config = Config::parse(dir.path(), &text, |_| None).unwrap();
        let state = if on_disk {
            serve::open(&config).await.unwrap()
        } else {
            std::fs::create_dir_all(dir.path().join("pki")).unwrap();
            State {
                store: Store::open(Box::new(backend::Memory::default())).unwrap(),
                pki: Pki::open(dir.path()).unwrap(),
            }
        };
        let pki = Pki::open(dir.path()).unwrap();
        let store = state.store.clone();
        let listener = TcpListener::bind(config.listen).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let serving = {
            let (config, stop) = (config.clone(), stop.clone());
            tokio::spawn(async move { serve::serve(state, &config, listener, stop).await })
        };
        Self { store, address, dir, pki, config, stop, serving }
    }

    /// Ends the controller; true if it ended well.
    pub async fn stop(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
        self.dir
    }

    pub async fn restart(self) -> Self {
        let lease_ms = self.config.lease_ms;
        let dir = self.stop().await;
        Self::start_in(dir, lease_ms, true).await
    }

    /// Loops' state over the same store, without loops.
    pub fn bare_control(&self) -> Control {
        let settings = ClusterSettings {
            cluster_id: String::new(),
            cluster_cidr: self.config.cluster_range().unwrap(),
            node_prefix_len: self.config.node_prefix_len,
            service_cidr: self.config.service_range().unwrap(),
            leases: self.config.leases(),
        };
        Control::new(self.store.clone(), settings, self.vault())
    }

    /// The key that the running controller uses.
    fn vault(&self) -> Arc<strata_controller::secrets::Vault> {
        let vault = strata_controller::secrets::Vault::open(self.dir.path(), &self.store.snapshot());
        Arc::new(vault.unwrap())
    }

    pub fn identity(&self, role: Role, name: &str) -> Identity {
        self.pki.ca().issue(role, name).unwrap()
    }

    pub async fn channel(&self, role: Role, name: &str) -> Channel {
        client::channel(&self.address, &self.identity(role, name), CONTROLLER_SERVER_NAME).await.unwrap()
    }

    pub async fn apply(&self, name: &str, image: &str, replicas: u32) {
        self.apply_with(name, image, replicas, |_| ()).await;
    }

    pub async fn apply_with(
        &self,
        name: &str,
        image: &str,
        replicas: u32,
        change: impl FnOnce(&mut types::PodTemplate),
    ) {
        let container = types::Container { name: "main".into(), image: image.into(), ..Default::default() };
        let mut template = types::PodTemplate { containers: vec![container], ..Default::default() };
        change(&mut template);
        let spec = types::WorkloadSpec { replicas: Some(replicas), template: Some(template), ..Default::default() };
        let meta = types::Meta { namespace: "default".into(), name: name.into(), ..Default::default() };
        let kind = object::Kind::Workload(types::Workload { spec: Some(spec), status: None });
        let object = Some(Object { meta: Some(meta), kind: Some(kind) });
        let mut objects = ObjectsClient::new(self.channel(Role::Admin, "admin").await);
        objects.apply(ApplyRequest { object, ..Default::default() }).await.unwrap();
    }

    /// Applies any object of the namespace `default`.
    pub async fn apply_object(&self, name: &str, kind: object::Kind) -> Object {
        let meta = types::Meta { namespace: "default".into(), name: name.into(), ..Default::default() };
        let object = Some(Object { meta: Some(meta), kind: Some(kind) });
        let mut objects = ObjectsClient::new(self.channel(Role::Admin, "admin").await);
        let answer = objects.apply(ApplyRequest { object, ..Default::default() }).await.unwrap();
        answer.into_inner().object.unwrap()
    }

    pub async fn delete(&self, key: &Key) {
        let mut objects = ObjectsClient::new(self.channel(Role::Admin, "admin").await);
        let request = DeleteRequest {
            kind: key.kind.into(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            ..Default::default()
        };
        objects.delete(request).await.unwrap();
    }

    /// What the API does when an import has ended.
    pub async fn import(&self, name: &str) {
        let spec = types::ImageSpec { digest: format!("sha256:{}", "a".repeat(64)), ..Default::default() };
        strata_controller::api::record_image(&self.store, name, spec, "").await.unwrap();
    }

    pub async fn session_as_admin(&self) -> Status {
        let mut client = DispatchClient::new(self.channel(Role::Admin, "admin").await);
        client.session(tokio_stream::iter(Vec::<AgentMessage>::new())).await.unwrap_err()
    }

    /// Waits until the store shows something.
    pub async fn wait(&self, what: &str, is_so: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let watch = async {
            let mut events = self.store.watch(0).unwrap();
            loop {
                let snapshot = self.store.snapshot();
                if is_so(&snapshot) {
                    return snapshot;
                }
                if !matches!(events.next().await, Some(Ok(_))) {
                    events = self.store.watch(0).unwrap();
                }
            }
        };
        match tokio::time::timeout(PATIENCE, watch).await {
            Ok(snapshot) => snapshot,
            Err(_) => panic!("waited in vain: {what}\n{}", describe(&self.store.snapshot())),
        }
    }
}

fn describe(snapshot: &Snapshot) -> String {
    let kinds = [Kind::Node, Kind::Workload, Kind::Pod, Kind::Event];
    let objects = kinds.iter().flat_map(|k| snapshot.list(*k, None).collect::<Vec<Arc<Object>>>());
    objects.map(|o| format!("{:?}\n", o.kind)).collect()
}

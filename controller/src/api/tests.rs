//! The API over real mutual TLS in one process: the store in memory, the nodes fakes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod apply;
mod delete;
mod fake_node;
mod identity;
mod relay;
mod view;

use super::{ApiState, Pki, REASON_KEY, ensure_default_namespace, services};
use fake_node::FakeNode;
use std::sync::Arc;
use strata_proto::{
    cluster::{ApplyRequest, ApplyResponse, cluster_client::ClusterClient, objects_client::ObjectsClient},
    types::{
        Container, Kind, Meta, Node, NodeSpec, NodeStatus, Object, Pod, PodSpec, PodStatus, PodTemplate, Workload,
        WorkloadSpec, node_status, object, pod_status,
    },
};
use strata_store::{Change, Condition, Key, Store, backend::Memory};
use strata_transport::{CONTROLLER_SERVER_NAME, Role, client, pki::Ca, server};
use tokio::{net::TcpListener, sync::oneshot};
use tonic::{Status, transport::Channel};

/// A running API. Ends with its value.
struct Cluster {
    state: Arc<ApiState>,
    address: String,
    _stop: oneshot::Sender<()>,
}

impl Cluster {
    async fn start() -> Self {
        strata_transport::install_crypto();
        let store = Store::open(Box::new(Memory::new())).unwrap();
        ensure_default_namespace(&store).await.unwrap();
        let pki = Pki::of(Ca::create().unwrap()).unwrap();
        let identity = pki.controller_identity().unwrap();
        let state = Arc::new(ApiState::new(store, pki, Arc::new(crate::secrets::Vault::of_key(&[1; 32]))).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let incoming =
            server::serve(listener, &identity, server::ClientCerts::Optional, async { drop(stopped.await) }).unwrap();
        let routes = services(&state);
        tokio::spawn(async move {
            server::tune_server(tonic::transport::Server::builder())
                .add_routes(routes)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Self { state, address, _stop: stop }
    }

    async fn channel(&self, role: Role, name: &str) -> Channel {
        let identity = self.state.pki.ca().issue(role, name).unwrap();
        client::channel(&self.address, &identity, CONTROLLER_SERVER_NAME).await.unwrap()
    }

    async fn objects(&self) -> ObjectsClient<Channel> {
        ObjectsClient::new(self.channel(Role::Admin, "admin").await)
    }

    async fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel(Role::Admin, "admin").await)
    }

    /// Puts an object into the store as a control loop does.
    async fn put(&self, object: Object) {
        self.state.store.commit(vec![Change::put(object, Condition::None)]).await.unwrap();
    }

    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.state.store.snapshot().get(&Key::new(kind, namespace, name))
    }

    /// Starts a node and makes it known as ready.
    async fn node(&self, name: &str) -> FakeNode {
        let node = FakeNode::start(self.state.pki.ca(), name).await;
        self.put(node_object(name, node.port, node_status::Phase::Ready)).await;
        node
    }
}

fn reason(status: &Status) -> String {
    status.metadata().get(REASON_KEY).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
}

fn meta(namespace: &str, name: &str) -> Option<Meta> {
    Some(Meta { namespace: namespace.into(), name: name.into(), ..Meta::default() })
}

fn template(containers: &[&str]) -> PodTemplate {
    let containers =
        containers.iter().map(|name| Container { name: (*name).into(), image: "a/b:1".into(), ..Container::default() });
    PodTemplate { containers: containers.collect(), ..PodTemplate::default() }
}

fn workload(name: &str, replicas: Option<u32>) -> Object {
    let spec = WorkloadSpec { replicas, template: Some(template(&["c"])), ..WorkloadSpec::default() };
    let kind = object::Kind::Workload(Workload { spec: Some(spec), status: None });
    Object { meta: meta("default", name), kind: Some(kind) }
}

fn workload_of(object: &Object) -> &Workload {
    let Some(object::Kind::Workload(w)) = &object.kind else { panic!("{object:?}") };
    w
}

fn pod(name: &str, node: &str, containers: &[&str], phase: pod_status::Phase) -> Object {
    let spec = PodSpec { template: Some(template(containers)), node: node.into(), ..PodSpec::default() };
    let status = PodStatus { phase: phase.into(), reason: "Unschedulable".into(), ..PodStatus::default() };
    let meta = meta("default", name).map(|m| Meta { uid: format!("uid-{name}"), ..m });
    Object { meta, kind: Some(object::Kind::Pod(Pod { spec: Some(spec), status: Some(status) })) }
}

fn node_object(name: &str, port: u16, phase: node_status::Phase) -> Object {
    let spec = NodeSpec { index: 1, subnet: "10.64.16.0/20".into(), ..Default::default() };
    let status =
        NodeStatus { phase: phase.into(), address: "127.0.0.1".into(), port: port.into(), ..NodeStatus::default() };
    Object { meta: meta("", name), kind: Some(object::Kind::Node(Node { spec: Some(spec), status: Some(status) })) }
}

async fn apply(client: &mut ObjectsClient<Channel>, object: Object) -> Result<ApplyResponse, Status> {
    let request = ApplyRequest { object: Some(object), ..ApplyRequest::default() };
    client.apply(request).await.map(tonic::Response::into_inner)
}

//! Who gets through the door: real sockets, real certificates, the Join and Objects services as callees.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant, SystemTime};
use strata_proto::cluster::{
    ApplyRequest, ApplyResponse, DeleteRequest, DeleteResponse, GetRequest, JoinRequest, JoinResponse, ListRequest,
    ListResponse, WatchRequest, WatchResponse,
    join_client::JoinClient,
    join_server::{Join, JoinServer},
    objects_client::ObjectsClient,
    objects_server::{Objects, ObjectsServer},
};
use strata_proto::types::{Meta, Object};
use strata_transport::{
    CONTROLLER_SERVER_NAME, Identity, Role, TransportError,
    authorize::RequireRole,
    client, node_server_name, peer_identity,
    pki::Ca,
    pki::KeyPair,
    server::{self, ClientCerts},
};
use tokio::{io::AsyncReadExt as _, net::TcpListener, net::TcpStream, sync::oneshot};
use tonic::{Code, Request, Response, Status, async_trait};

struct Echo;

#[async_trait]
impl Objects for Echo {
    type ListStream = tokio_stream::Empty<Result<ListResponse, Status>>;
    type WatchStream = tokio_stream::Empty<Result<WatchResponse, Status>>;
    /// Answers who asks.
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Object>, Status> {
        let name = peer_identity(&request).map(|peer| peer.to_string()).unwrap_or_default();
        Ok(Response::new(Object { meta: Some(Meta { name, ..Default::default() }), kind: None }))
    }
    async fn apply(&self, _: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn delete(&self, _: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[async_trait]
impl Join for Echo {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let ca_pem = peer_identity(&request).map_or("nobody".to_owned(), |peer| peer.to_string());
        Ok(Response::new(JoinResponse { ca_pem, ..Default::default() }))
    }
}

struct Server {
    address: String,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

async fn start(identity: &Identity, client_certs: ClientCerts) -> Server {
    strata_transport::install_crypto();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let incoming = server::serve(listener, identity, client_certs, async {
        drop(stopped.await);
    })
    .unwrap();
    let router = server::tune_server(tonic::transport::Server::builder())
        .add_service(ObjectsServer::with_interceptor(Echo, RequireRole(&[Role::Admin])))
        .add_service(JoinServer::new(Echo));
    Server { address, stop: Some(stop), served: tokio::spawn(router.serve_with_incoming(incoming)) }
}

async fn info(address: &str, identity: &Identity) -> Result<String, Status> {
    let channel = client::channel(address, identity, CONTROLLER_SERVER_NAME).await.unwrap();
    ObjectsClient::new(channel)
        .get(GetRequest::default())
        .await
        .map(|answer| answer.into_inner().meta.unwrap_or_default().name)
}

async fn refusal(address: &str, identity: &Identity, name: &str) -> TransportError {
    client::channel(address, identity, name).await.expect_err("it must be refused")
}

#[tokio::test]
async fn an_admin_is_let_in_and_known_by_name() {
    let ca = Ca::create().unwrap();
    let server = start(&ca.issue(Role::Controller, "main").unwrap(), ClientCerts::Optional).await;
    let admin = ca.issue(Role::Admin, "alice").unwrap();
    assert_eq!(info(&server.address, &admin).await.unwrap(), "admin \"alice\"");
    // A lazy channel gets there too.
    let lazy = client::channel_lazy(&server.address, &admin, CONTROLLER_SERVER_NAME).unwrap();
    assert!(ObjectsClient::new(lazy).get(GetRequest::default()).await.is_ok());
}

#[tokio::test]
async fn a_node_where_an_admin_is_required_is_denied_and_told_so() {
    let ca = Ca::create().unwrap();
    let server = start(&ca.issue(Role::Controller, "main").unwrap(), ClientCerts::Optional).await;
    let status = info(&server.address, &ca.issue(Role::Node, "node-1").unwrap()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("role admin") && status.message().contains("node \"node-1\""), "{status}");
    let nobody = Identity { ca_pem: ca.cert_pem().into(), ..Default::default() };
    let status = info(&server.address, &nobody).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
}

#[tokio::test]
async fn without_a_certificate_nobody_gets_in_where_one_is_required() {
    let ca = Ca::create().unwrap();
    let server = start(&ca.issue(Role::Node, "node-1").unwrap(), ClientCerts::Required).await;
    let nobody = Identity { ca_pem: ca.cert_pem().into(), ..Default::default() };
    let error = refusal(&server.address, &nobody, &node_server_name("node-1")).await;
    assert!(error.is_refusal(), "{error:?}");
    assert!(error.to_string().contains("none was shown"), "{error}");
}

#[tokio::test]
async fn foreign_and_expired_certificates_are_refused_with_the_reason() {
    let (ca, other) = (Ca::create().unwrap(), Ca::create().unwrap());
    let server = start(&ca.issue(Role::Controller, "main").unwrap(), ClientCerts::Optional).await;
    // The client trusts another CA.
    let error = refusal(&server.address, &other.issue(Role::Admin, "a").unwrap(), CONTROLLER_SERVER_NAME).await;
    assert!(matches!(error, TransportError::UnverifiedServer { .. }), "{error:?}");
    assert!(error.to_string().contains("another CA"), "{error}");
    // The client trusts this CA, but its certificate comes from another one.
    let foreign = Identity { ca_pem: ca.cert_pem().into(), ..other.issue(Role::Admin, "a").unwrap() };
    let error = refusal(&server.address, &foreign, CONTROLLER_SERVER_NAME).await;
    assert!(error.is_refusal(), "{error:?}");
    // An expired client.
    let long_ago = SystemTime::now() - Duration::from_secs(40 * 24 * 3600);
    let month = Duration::from_secs(30 * 24 * 3600);
    let expired = ca.issue_dated(Role::Admin, "a", long_ago, month).unwrap();
    let error = refusal(&server.address, &expired, CONTROLLER_SERVER_NAME).await;
    assert!(error.is_refusal() && error.to_string().contains("expired"), "{error:?}");
    // A lazy channel's status carries the same reason.
    let lazy = client::channel_lazy(&server.address, &expired, CONTROLLER_SERVER_NAME).unwrap();
    let status = ObjectsClient::new(lazy).get(GetRequest::default()).await.unwrap_err();
    assert!(TransportError::find(&status).is_some_and(TransportError::is_refusal), "{status:?}");
    // An expired server.
    let server =
        start(&ca.issue_dated(Role::Controller, "main", long_ago, month).unwrap(), ClientCerts::Optional).await;
    let error = refusal(&server.address, &ca.issue(Role::Admin, "a").unwrap(), CONTROLLER_SERVER_NAME).await;
    assert!(matches!(&error, TransportError::UnverifiedServer { why, .. } if why.contains("expired")), "{error:?}");
}

#[tokio::test]
async fn a_server_with_another_name_is_not_taken_for_the_one_meant() {
    let ca = Ca::create().unwrap();
    let server = start(&ca.issue(Role::Node, "node-1").unwrap(), ClientCerts::Required).await;
    let controller = ca.issue(Role::Controller, "main").unwrap();
    let error = refusal(&server.address, &controller, &node_server_name("node-2")).await;
    assert!(
        matches!(&error, TransportError::UnverifiedServer { why, .. } if why.contains("another name")),
        "{error:?}"
    );
    // A node cannot pass itself off as the controller, and an admin certificate serves nothing.
    let error = refusal(&server.address, &controller, CONTROLLER_SERVER_NAME).await;
    assert!(matches!(error, TransportError::UnverifiedServer { .. }), "{error:?}");
    assert!(client::channel(&server.address, &controller, &node_server_name("node-1")).await.is_ok());
}

#[tokio::test]
async fn joining_needs_no_certificate_but_the_right_pin() {
    let ca = Ca::create().unwrap();
    let server = start(&ca.issue(Role::Controller, "main").unwrap(), ClientCerts::Optional).await;
    let channel = client::channel_pinned(&server.address, &ca.fingerprint().unwrap()).await.unwrap();
    let csr_pem = KeyPair::generate().unwrap().csr_pem("node-1").unwrap();
    let request = JoinRequest { csr_pem, ..Default::default() };
    assert_eq!(JoinClient::new(channel).join(request).await.unwrap().into_inner().ca_pem, "nobody");

    let other = Ca::create().unwrap().fingerprint().unwrap();
    let error = client::channel_pinned(&server.address, &other).await.err().unwrap();
    assert!(
        matches!(&error, TransportError::UnverifiedServer { why, .. } if why.contains("fingerprints")),
        "{error:?}"
    );
    // The right CA, but a node's certificate instead of the controller's.
    let node = start(&ca.issue(Role::Node, "node-1").unwrap(), ClientCerts::Optional).await;
    let error = client::channel_pinned(&node.address, &ca.fingerprint().unwrap()).await.err().unwrap();
    assert!(
        matches!(&error, TransportError::UnverifiedServer { why, .. } if why.contains("another name")),
        "{error:?}"
    );
    // A leaf whose own fingerprint is pinned is no CA.
    assert!(client::channel_pinned(&server.address, &"0".repeat(64)).await.is_err());
}

#[tokio::test]
async fn silent_clients_hold_up_nobody() {
    let ca = Ca::create().unwrap();
    let server = start(&ca.issue(Role::Controller, "main").unwrap(), ClientCerts::Optional).await;
    let mut silent = Vec::new();
    for _ in 0..2 * server::HANDSHAKES_MAX {
        silent.push(TcpStream::connect(&server.address).await.unwrap());
    }
    let began = Instant::now();
    assert!(info(&server.address, &ca.issue(Role::Admin, "a").unwrap()).await.is_ok());
    assert!(began.elapsed() < server::HANDSHAKE_TIMEOUT / 2, "{:?}", began.elapsed());
    // And they are shown out.
    let mut byte = [0; 1];
    let closed = tokio::time::timeout(server::HANDSHAKE_TIMEOUT * 2, silent[0].read(&mut byte)).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
}

#[tokio::test]
async fn nobody_there_and_nonsense_addresses_are_told_apart() {
    strata_transport::install_crypto();
    let ca = Ca::create().unwrap();
    let admin = ca.issue(Role::Admin, "a").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let error = refusal(&free, &admin, CONTROLLER_SERVER_NAME).await;
    assert!(matches!(error, TransportError::Connect { .. }), "{error:?}");
    for address in ["", "x", ":1", "host:", "host:70000", "a b:1"] {
        assert!(
            matches!(refusal(address, &admin, CONTROLLER_SERVER_NAME).await, TransportError::Address { .. }),
            "{address}"
        );
    }
    // Someone who accepts and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = refusal(&listener.local_addr().unwrap().to_string(), &admin, CONTROLLER_SERVER_NAME).await;
    assert!(matches!(error, TransportError::ConnectTimeout { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_ends() {
    let ca = Ca::create().unwrap();
    let mut server = start(&ca.issue(Role::Controller, "main").unwrap(), ClientCerts::Optional).await;
    drop(server.stop.take());
    tokio::time::timeout(Duration::from_secs(10), server.served).await.unwrap().unwrap().unwrap();
    let admin = ca.issue(Role::Admin, "a").unwrap();
    assert!(client::channel(&server.address, &admin, CONTROLLER_SERVER_NAME).await.is_err());
}

use super::*;
use crate::api::ensure_bootstrap_token;
use strata_proto::{
    cluster::{CreateTokenRequest, GetRequest, InfoRequest, JoinRequest, LocateRequest, join_client::JoinClient},
    types::LayerInfo,
};
use strata_transport::{Identity, pki::KeyPair, token::JoinToken};
use tonic::Code;

async fn token(cluster: &Cluster, uses: u32) -> JoinToken {
    let request = CreateTokenRequest { ttl_s: 60, uses };
    cluster.cluster().await.create_token(request).await.unwrap().into_inner().token.parse().unwrap()
}

async fn join(cluster: &Cluster, token: &JoinToken, node: &str, csr: &str) -> Result<String, Status> {
    let channel = client::channel_pinned(&cluster.address, &token.ca_fingerprint).await.unwrap();
    let request = JoinRequest {
        token_id: token.id.clone(),
        secret: token.secret.clone(),
        node: node.into(),
        csr_pem: csr.into(),
    };
    JoinClient::new(channel).join(request).await.map(|r| r.into_inner().certificate_pem)
}

#[tokio::test]
async fn a_token_gives_a_certificate_bound_to_the_nodes_name() {
    let cluster = Cluster::start().await;
    let token = token(&cluster, 2).await;
    let key = KeyPair::generate().unwrap();
    let csr = key.csr_pem("n1").unwrap();
    let bad = join(&cluster, &token, "n1", "no request").await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    let bad = join(&cluster, &token, "N1", &csr).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    let wrong = JoinToken { secret: "0".repeat(64), ..token.clone() };
    let refused = join(&cluster, &wrong, "n1", &csr).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "TokenRefused"));

    let cert_pem = join(&cluster, &token, "n1", &csr).await.unwrap();
    let identity = Identity { cert_pem, key_pem: key.pem(), ca_pem: cluster.state.pki.ca().cert_pem().into() };
    let node = client::channel(&cluster.address, &identity, CONTROLLER_SERVER_NAME).await.unwrap();
    // A node may locate layers, and nothing else here.
    ClusterClient::new(node.clone()).locate(LocateRequest::default()).await.unwrap();
    assert_eq!(ClusterClient::new(node.clone()).info(InfoRequest {}).await.unwrap_err().code(), Code::PermissionDenied);
    let get = GetRequest { kind: Kind::Token.into(), name: token.id.clone(), ..GetRequest::default() };
    assert_eq!(ObjectsClient::new(node).get(get.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    let stored = cluster.objects().await.get(get).await.unwrap().into_inner();
    assert!(!format!("{stored:?}").contains(&token.secret));

    // The name of a node that is alive is taken; that of one that is not may be joined again.
    cluster.put(node_object("n1", 1, node_status::Phase::Ready)).await;
    let taken = join(&cluster, &token, "n1", &csr).await.unwrap_err();
    assert_eq!((taken.code(), reason(&taken).as_str()), (Code::AlreadyExists, "NameTaken"));
    cluster.put(node_object("n1", 1, node_status::Phase::Unknown)).await;
    join(&cluster, &token, "n1", &csr).await.unwrap();
    // That was its second and last use.
    let used = join(&cluster, &token, "n2", &csr).await.unwrap_err();
    assert_eq!(reason(&used), "TokenRefused");
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let cluster = Cluster::start().await;
    let (token, mut object) = crate::api::tokens::create(&cluster.state.pki, 60, 0).unwrap();
    let Some(object::Kind::Token(t)) = &mut object.kind else { panic!() };
    t.spec.as_mut().unwrap().expires = Some(strata_proto::timestamp_of_ms(1));
    cluster.put(object).await;
    let csr = KeyPair::generate().unwrap().csr_pem("n1").unwrap();
    assert_eq!(reason(&join(&cluster, &token, "n1", &csr).await.unwrap_err()), "TokenRefused");
}

#[tokio::test]
async fn nobody_without_a_certificate_gets_in() {
    let cluster = Cluster::start().await;
    let channel = client::channel_pinned(&cluster.address, cluster.state.pki.fingerprint()).await.unwrap();
    let get = GetRequest { kind: Kind::Pod.into(), name: "x".into(), ..GetRequest::default() };
    assert_eq!(ObjectsClient::new(channel.clone()).get(get).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(ClusterClient::new(channel).info(InfoRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn first_start_writes_what_ctl_and_agents_need() {
    use std::os::unix::fs::PermissionsExt as _;
    strata_transport::install_crypto();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Box::new(Memory::new())).unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let path = pki.ensure_admin_context(dir.path(), "192.0.2.1:7443").unwrap();
    ensure_bootstrap_token(&store, &pki, dir.path()).await.unwrap();
    let config = strata_client::Config::load(&path).unwrap();
    assert_eq!(config.contexts[&config.current].endpoints, ["192.0.2.1:7443"]);
    let bootstrap = dir.path().join("bootstrap-token");
    for file in [&path, &bootstrap] {
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let before = (std::fs::read_to_string(&path).unwrap(), std::fs::read_to_string(&bootstrap).unwrap());
    // A second start keeps all of it.
    let again = Pki::open(dir.path()).unwrap();
    assert_eq!(again.fingerprint(), pki.fingerprint());
    again.ensure_admin_context(dir.path(), "192.0.2.1:7443").unwrap();
    ensure_bootstrap_token(&store, &again, dir.path()).await.unwrap();
    assert_eq!(before, (std::fs::read_to_string(&path).unwrap(), std::fs::read_to_string(&bootstrap).unwrap()));
    // Another store does not know the token, another address needs another context.
    let other = Store::open(Box::new(Memory::new())).unwrap();
    ensure_bootstrap_token(&other, &again, dir.path()).await.unwrap();
    again.ensure_admin_context(dir.path(), "192.0.2.2:7443").unwrap();
    assert_ne!(before.0, std::fs::read_to_string(&path).unwrap());
    assert_ne!(before.1, std::fs::read_to_string(&bootstrap).unwrap());
}

#[tokio::test]
async fn locate_names_other_ready_nodes_with_their_address() {
    let cluster = Cluster::start().await;
    for (name, phase) in
        [("n1", node_status::Phase::Ready), ("n2", node_status::Phase::Ready), ("n3", node_status::Phase::Lost)]
    {
        let mut object = node_object(name, 7, phase);
        let Some(object::Kind::Node(node)) = &mut object.kind else { panic!() };
        let status = node.status.as_mut().unwrap();
        status.layers = vec![LayerInfo { diff_id: "sha256:aa".into(), size_bytes: 1 }];
        status.images = vec!["sha256:bb".into()];
        cluster.put(object).await;
    }
    let request = LocateRequest {
        diff_ids: vec!["sha256:aa".into(), "sha256:cc".into()],
        image_digests: vec!["sha256:bb".into()],
        ..LocateRequest::default()
    };
    let mut asking = ClusterClient::new(cluster.channel(Role::Node, "n2").await);
    let holders = asking.locate(request).await.unwrap().into_inner().holders;
    assert_eq!(holders.len(), 1);
    let holder = &holders[0];
    assert_eq!((holder.node.as_str(), holder.address.as_str()), ("n1", "127.0.0.1:7"));
    assert_eq!((holder.diff_ids.len(), holder.image_digests.len()), (1, 1));
    let large = LocateRequest { diff_ids: vec![String::new(); 1001], ..LocateRequest::default() };
    assert_eq!(asking.locate(large).await.unwrap_err().code(), Code::InvalidArgument);
}

//! Nodes that give one another images over real TLS, and one that lies.

use crate::fixture::{config, layer, noise, store, tar, zstd};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::BoxStream};
use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use strata_image::{BlobSource as _, ImageStore, LayerRequest, ProgressSink, Sources, StoredImage};
use strata_model::{Digest, ImageName, PinnedImage};
use strata_peer::{PeerService, PeerSource, Peers};
use strata_proto::{
    cluster::{Holder, LocateRequest, LocateResponse},
    peer::{
        Chunk, GetBlobRequest, GetLayerRequest,
        peer_client::PeerClient,
        peer_server::{Peer, PeerServer},
    },
};
use strata_transport::{
    Role,
    client::channel,
    node_server_name,
    pki::Ca,
    server::{ClientCerts, serve, tune_server},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Request, Response, Status};

/// More than the flow-control window of a stream, so that it does not end before it is read.
const NOISE_BYTES: usize = 6 << 20;

/// A node's API, with nothing but the peer service.
struct Node {
    name: &'static str,
    address: String,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn start<S: Peer>(ca: &Ca, name: &'static str, service: PeerServer<S>) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let identity = ca.issue(Role::Node, name).unwrap();
    let incoming = serve(listener, &identity, ClientCerts::Required, std::future::pending()).unwrap();
    let router = tune_server(tonic::transport::Server::builder()).add_service(service);
    let task = tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
    Node { name, address, task }
}

/// What the controller would answer: these nodes have all of it.
fn peers(ca: &Ca, holders: &[&Node]) -> Arc<Peers> {
    let holders: Vec<_> = holders.iter().map(|node| (node.name, node.address.clone())).collect();
    let answer = move |request: LocateRequest| -> BoxFuture<'static, Result<LocateResponse, Status>> {
        let holder = |(node, address): &(&str, String)| Holder {
            node: (*node).into(),
            address: address.clone(),
            diff_ids: request.diff_ids.clone(),
            image_digests: request.image_digests.clone(),
        };
        let answer = LocateResponse { holders: holders.iter().map(holder).collect(), ..LocateResponse::default() };
        async move { Ok(answer) }.boxed()
    };
    Arc::new(Peers::new("asking", ca.issue(Role::Node, "asking").unwrap(), Arc::new(answer)))
}

fn archive() -> Vec<u8> {
    let (a, b) = (layer("a"), tar(&[("noise", &noise(NOISE_BYTES, 4))], &[]));
    let config = config(&[&a, &b]);
    let manifest = r#"[{"Config":"c","RepoTags":["peers/test:1"],"Layers":["a","b"]}]"#;
    tar(&[("manifest.json", manifest.as_bytes()), ("c", &config), ("a", &a), ("b", &zstd(&b))], &[])
}

/// Another image that has the first layer of the one above.
fn first_layer_only() -> Vec<u8> {
    let a = layer("a");
    let manifest = r#"[{"Config":"c","RepoTags":["other:1"],"Layers":["a"]}]"#;
    tar(&[("manifest.json", manifest.as_bytes()), ("c", &config(&[&a])), ("a", &a)], &[])
}

async fn imported(store: &ImageStore) -> (PinnedImage, Arc<StoredImage>) {
    let images = store.import(io::Cursor::new(archive()), None).await.unwrap();
    let image = images[0].image.clone();
    let pinned = PinnedImage {
        name: ImageName::parse("peers/test:1").unwrap(),
        digest: image.digest.clone(),
        from_registry: false,
        layers: image.layers.clone(),
    };
    (pinned, image)
}

async fn ensure(store: &ImageStore, image: &PinnedImage, peers: Arc<Peers>) -> strata_image::Result<Arc<StoredImage>> {
    store.ensure(image, &Sources { peers, registry: None }, &ProgressSink::silent()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_was_imported_on_one_node_is_got_by_another() {
    strata_transport::install_crypto();
    let ca = Ca::create().unwrap();
    let ((_a, giver), (_b, taker)) = (store(), store());
    let (pinned, image) = imported(&giver).await;
    let node = start(&ca, "node-1", PeerService::server(giver.clone())).await;
    let error = ensure(&taker, &pinned, peers(&ca, &[])).await.unwrap_err();
    assert_eq!(error.reason(), "ImageNowhere", "{error}");
    let got = ensure(&taker, &pinned, peers(&ca, &[&node])).await.unwrap();
    assert_eq!((&got.digest, &got.layers, got.from_registry), (&image.digest, &image.layers, false));
    for layer in &got.layers {
        taker.layers().verify(&layer.diff_id).unwrap();
    }
    // What was got can be given on.
    let (_c, third) = store();
    let second = start(&ca, "node-2", PeerService::server(taker.clone())).await;
    drop(node);
    ensure(&third, &pinned, peers(&ca, &[&second])).await.unwrap();
}

/// Sends other bytes than it is asked for.
struct Liar {
    blobs: ImageStore,
    asked: Arc<AtomicUsize>,
    lie: fn(Vec<u8>) -> Vec<u8>,
}

#[tonic::async_trait]
impl Peer for Liar {
    type GetLayerStream = BoxStream<'static, Result<Chunk, Status>>;
    type GetBlobStream = BoxStream<'static, Result<Chunk, Status>>;
    async fn get_layer(&self, request: Request<GetLayerRequest>) -> Result<Response<Self::GetLayerStream>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let digest: Digest = request.into_inner().diff_id.parse().unwrap();
        let mut data = Vec::new();
        io::Read::read_to_end(&mut self.blobs.layers().open_tar(&digest).unwrap(), &mut data).unwrap();
        let data = (self.lie)(data);
        let chunk = Chunk { total_bytes: data.len() as u64, data: data.into() };
        Ok(Response::new(futures::stream::iter([Ok(chunk)]).boxed()))
    }
    async fn get_blob(&self, request: Request<GetBlobRequest>) -> Result<Response<Self::GetBlobStream>, Status> {
        let digest = request.into_inner().digest.parse().unwrap();
        let data = self.blobs.read_blob(&digest).unwrap().unwrap();
        Ok(Response::new(
            futures::stream::iter([Ok(Chunk { total_bytes: data.len() as u64, data: data.into() })]).boxed(),
        ))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_lies_is_named_and_the_next_one_used() {
    strata_transport::install_crypto();
    let ca = Ca::create().unwrap();
    let (_a, giver) = store();
    let (pinned, _) = imported(&giver).await;
    let lies: [fn(Vec<u8>) -> Vec<u8>; 3] = [
        |mut data| {
            data[600] ^= 1;
            data
        },
        |_| layer("something else"),
        |_| vec![0xff; 5000],
    ];
    for lie in lies {
        let asked = Arc::new(AtomicUsize::new(0));
        let liar = PeerServer::new(Liar { blobs: giver.clone(), asked: asked.clone(), lie });
        let liar = start(&ca, "liar", liar).await;
        // Alone it gets nothing in, and nothing of it stays.
        let (_b, taker) = store();
        // One layer only: downloads of others may be on their way when the first has failed.
        taker.import(io::Cursor::new(first_layer_only()), None).await.unwrap();
        let error = ensure(&taker, &pinned, peers(&ca, &[&liar])).await.unwrap_err();
        assert!(error.blames_sender() && error.to_string().contains("node liar"), "{error}");
        assert_eq!(taker.layers().list().unwrap().len(), 1);
        assert_eq!(taker.distrusted(), ["node liar"]);
        // With an honest one beside it the image comes, and the liar is not asked again.
        let before = asked.load(Ordering::SeqCst);
        let honest = start(&ca, "honest", PeerService::server(giver.clone())).await;
        ensure(&taker, &pinned, peers(&ca, &[&liar, &honest])).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), before);
        // Also a node that knows nothing about it yet gets there, whichever comes first.
        let (_c, fresh) = store();
        ensure(&fresh, &pinned, peers(&ca, &[&liar, &honest])).await.unwrap();
        for layer in &pinned.layers {
            fresh.layers().verify(&layer.diff_id).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_are_served_and_only_so_many_at_a_time() {
    strata_transport::install_crypto();
    let ca = Ca::create().unwrap();
    let (_a, giver) = store();
    let (_, image) = imported(&giver).await;
    let node = start(&ca, "node-1", PeerService::server_with(giver.clone(), 1)).await;
    let connect = |role, name: &'static str| {
        let (identity, address) = (ca.issue(role, name).unwrap(), node.address.clone());
        async move { channel(&address, &identity, &node_server_name("node-1")).await.unwrap() }
    };
    let request = |offset| GetLayerRequest { diff_id: image.layers[1].diff_id.to_string(), offset };
    let mut admin = PeerClient::new(connect(Role::Admin, "admin").await);
    assert_eq!(admin.get_layer(request(0)).await.unwrap_err().code(), tonic::Code::PermissionDenied);
    let mut client = PeerClient::new(connect(Role::Node, "node-2").await);
    let bad = GetLayerRequest { diff_id: "sha256:../../identity/key.pem".into(), offset: 0 };
    assert_eq!(client.get_layer(bad).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let unknown = GetLayerRequest { diff_id: Digest::of(b"unknown").to_string(), offset: 0 };
    assert_eq!(client.get_layer(unknown).await.unwrap_err().code(), tonic::Code::NotFound);
    let far = client.get_layer(request(1 << 40)).await.unwrap_err();
    assert_eq!(far.code(), tonic::Code::OutOfRange);
    // From an offset, exactly the rest comes.
    let mut chunks = client.get_layer(request(1_000_000)).await.unwrap().into_inner();
    let second = client.get_layer(request(0)).await.unwrap_err();
    assert_eq!(second.code(), tonic::Code::ResourceExhausted);
    let source = PeerSource::new("node-1", connect(Role::Node, "node-3").await);
    let wanted = LayerRequest {
        diff_id: image.layers[1].diff_id.clone(),
        blob: strata_image::Descriptor {
            media_type: String::new(),
            digest: image.layers[1].diff_id.clone(),
            size_bytes: 0,
        },
    };
    let error = source.fetch_layer(&wanted, 0).await.err().unwrap();
    assert_eq!(error.reason(), "PeerBusy", "{error}");
    let mut rest = Vec::new();
    while let Some(chunk) = chunks.next().await {
        rest.extend_from_slice(&chunk.unwrap().data);
    }
    let whole = tar(&[("noise", &noise(NOISE_BYTES, 4))], &[]);
    assert!(rest == whole[1_000_000..], "{} bytes", rest.len());
    drop(chunks);
    // The place is free again once the stream has ended on the other side.
    let free = async {
        loop {
            match source.fetch_layer(&wanted, 0).await {
                Ok(stream) => return stream,
                Err(error) => assert_eq!(error.reason(), "PeerBusy"),
            }
            tokio::task::yield_now().await;
        }
    };
    let stream = tokio::time::timeout(std::time::Duration::from_secs(5), free).await.unwrap();
    assert_eq!(stream.total_bytes, Some(whole.len() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_in_progress_protects_its_layers() {
    strata_transport::install_crypto();
    let ca = Ca::create().unwrap();
    let ((_a, giver), (_b, taker)) = (store(), store());
    let (pinned, image) = imported(&giver).await;
    let node = start(&ca, "node-1", PeerService::server(giver.clone())).await;
    // The taker has the image's first layer from another image, which goes away as soon as the second one arrives.
    let other = taker.import(io::Cursor::new(first_layer_only()), None).await.unwrap()[0].image.digest.clone();
    let removed = Arc::new(Mutex::new(None));
    let (store, log) = (taker.clone(), removed.clone());
    let sink = ProgressSink::new(move |news| {
        let mut removed = log.lock().unwrap();
        if news.step == strata_image::Step::Present && removed.is_none() {
            *removed = Some(store.remove(&other));
        }
    });
    let sources = Sources { peers: peers(&ca, &[&node]), registry: None };
    taker.ensure(&pinned, &sources, &sink).await.unwrap();
    assert!(matches!(*removed.lock().unwrap(), Some(Ok(_))));
    assert!(taker.has_image(&image.digest), "the shared layer must have stayed");
}

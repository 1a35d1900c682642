//! Pulling from a registry that does as it should, more or less.

use crate::{
    fixture::{Image, gzip, layer, noise, store, tar, zstd},
    http::{Answer, Server, serve},
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use strata_image::{ImageStore, NoPeers, Progress, ProgressSink, Registry, RegistrySettings, Step, StoredImage};
use strata_model::ImageName;

pub async fn pull(store: &ImageStore, registry: &Registry, name: &ImageName) -> strata_image::Result<Arc<StoredImage>> {
    store.pull(registry, name, Arc::new(NoPeers), &ProgressSink::silent()).await.map(|(_, stored)| stored)
}

fn big(seed: u64) -> Image {
    let tar = tar(&[("noise", &noise(3 << 20, seed))], &[]);
    Image::new(&[(tar.clone(), gzip(&tar))])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_compression_gives_the_tar_its_diff_id_names() {
    let (a, b, c, d) = (layer("a"), layer("b"), layer("c"), layer("d"));
    let members = [gzip(&c[..700]), gzip(&c[700..])].concat();
    let image =
        Image::new(&[(a.clone(), gzip(&a)), (b.clone(), zstd(&b)), (c.clone(), members), (d.clone(), d.clone())]);
    let server = Server::registry(image.clone()).await;
    let (_dir, store) = store();
    let news = Arc::new(Mutex::new(Vec::new()));
    let sink = news.clone();
    let sink = ProgressSink::new(move |progress: Progress| sink.lock().unwrap().push(progress.step));
    let (resolved, stored) = store.pull(&server.client(), &server.name(), Arc::new(NoPeers), &sink).await.unwrap();
    assert_eq!((&stored.digest, &resolved.digest), (&image.digest(), &image.digest()));
    assert!(stored.from_registry && store.has_image(&image.digest()));
    let diff_ids: Vec<_> = stored.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    assert_eq!(diff_ids, image.diff_ids);
    for diff_id in &diff_ids {
        store.layers().verify(diff_id).unwrap();
    }
    let news = news.lock().unwrap().clone();
    assert_eq!((news.first(), news.last()), (Some(&Step::Resolving), Some(&Step::Done)));
    assert_eq!(news.iter().filter(|step| **step == Step::Verified).count(), 4);
}

#[tokio::test]
async fn resolving_downloads_no_layer() {
    let image = Image::simple();
    let server = Server::registry(image.clone()).await;
    let resolved = server.client().resolve(&server.name()).await.unwrap();
    assert_eq!(resolved.layers[0].diff_id, image.diff_ids[0]);
    assert_eq!(resolved.layers[0].size_bytes, image.layer_blob(0).len() as u64);
    assert_eq!(server.count(&image.layer_blobs[0].to_string()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_pulls_at_once_fetch_each_layer_once() {
    let image = big(7);
    let server = Arc::new(Server::registry(image.clone()).await);
    let (_dir, store) = store();
    let pulls: Vec<_> = (0..20)
        .map(|_| {
            let (store, server) = (store.clone(), server.clone());
            tokio::spawn(async move { pull(&store, &server.client(), &server.name()).await })
        })
        .collect();
    for one in pulls {
        one.await.unwrap().unwrap();
    }
    assert_eq!(server.count(&image.layer_blobs[0].to_string()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_cut_goes_on_where_it_was() {
    for honours_range in [true, false] {
        let image = big(11);
        let (tries, served) = (AtomicUsize::new(0), image.clone());
        let server = Server::start(move |asked| {
            let whole = serve(&served, asked);
            if !asked.path.contains(&served.layer_blobs[0].to_string()) {
                return whole;
            }
            let number = tries.fetch_add(1, Ordering::SeqCst);
            let cut = whole.body.len() / 3;
            match (number, honours_range) {
                (0 | 1, true) => whole.cut(cut),
                (0, false) => whole.cut(cut),
                (1, false) => Answer::new(200, served.layer_blob(0).clone()).cut(2 * cut),
                (_, false) => Answer::new(200, served.layer_blob(0).clone()),
                (_, true) => whole,
            }
        })
        .await;
        let (_dir, store) = store();
        pull(&store, &server.client(), &server.name()).await.unwrap();
        let offsets: Vec<_> = server
            .asked()
            .iter()
            .filter(|asked| asked.path.contains(&image.layer_blobs[0].to_string()))
            .map(super::http::Asked::offset)
            .collect();
        assert_eq!(offsets.len(), 3, "{offsets:?}");
        assert!(offsets[0] == 0 && offsets[0] < offsets[1] && offsets[1] < offsets[2], "{offsets:?}");
        store.layers().verify(&image.diff_ids[0]).unwrap();
    }
}

#[tokio::test]
async fn an_index_is_kept_and_this_platforms_manifest_taken() {
    let image = Image::simple();
    let other = "application/vnd.oci.image.manifest.v1+json";
    let mut mine = crate::fixture::descriptor(other, &image.manifest);
    mine["platform"] = serde_json::json!({"os": "linux", "architecture": strata_image::Platform::host().architecture});
    let mut foreign = crate::fixture::descriptor(other, b"foreign");
    foreign["platform"] = serde_json::json!({"os": "linux", "architecture": "vax"});
    let index =
        serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": [foreign.clone(), mine]})).unwrap();
    let only_foreign = serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": [foreign]})).unwrap();
    let digest = strata_model::Digest::of(&index);
    let served = image.clone();
    let server = Server::start(move |asked| match asked.path.rsplit('/').next() {
        Some("1") => Answer::new(200, index.clone()),
        Some("vax") => Answer::new(200, only_foreign.clone()),
        _ => serve(&served, asked),
    })
    .await;
    let (dir, store) = store();
    let stored = pull(&store, &server.client(), &server.name()).await.unwrap();
    assert_eq!((&stored.digest, &stored.manifest_digest), (&digest, &image.digest()));
    assert!(dir.path().join(format!("blobs/sha256/{}", digest.hex())).exists());
    let name = ImageName::parse(&format!("{}/some/image:vax", server.address)).unwrap();
    let error = pull(&store, &server.client(), &name).await.unwrap_err();
    assert_eq!(error.reason(), "UnsupportedPlatform");
    assert!(error.to_string().contains("linux/vax"), "{error}");
    store.remove(&digest).unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 0, "removal leaves no blob");
}

#[tokio::test]
async fn plain_http_needs_a_declaration_also_on_this_machine() {
    let server = Server::registry(Image::simple()).await;
    let strict = Registry::new(&RegistrySettings::default()).unwrap();
    let error = strict.resolve(&server.name()).await.unwrap_err();
    assert_eq!(error.reason(), "RegistryUnreachable");
    assert!(error.to_string().contains("insecure_registries"), "{error}");
    assert!(server.count("/v2/") == 0, "nothing was asked in clear");
}

#[tokio::test]
async fn tokens_are_fetched_with_the_credentials_and_do_not_leak_along_redirects() {
    let image = Image::simple();
    let elsewhere = Server::registry(image.clone()).await;
    let (served, target) = (image.clone(), elsewhere.address.clone());
    let server = Server::start(move |asked| {
        if asked.path.starts_with("/token") {
            let right = asked.header("authorization") == Some("Basic dXNlcjpzZWNyZXQ=");
            assert!(asked.path.contains("scope=repository%3Asome%2Fimage%3Apull"), "{}", asked.path);
            return if right { Answer::new(200, r#"{"token":"T"}"#) } else { Answer::new(401, "") };
        }
        if asked.header("authorization") != Some("Bearer T") {
            let challenge = format!(r#"Bearer realm="http://{}/token",service="r""#, asked.header("host").unwrap());
            return Answer::new(401, "").with("www-authenticate", &challenge);
        }
        if asked.path.contains(&served.layer_blobs[0].to_string()) {
            return Answer::new(307, "").with("location", &format!("http://{target}{}", asked.path));
        }
        serve(&served, asked)
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let auth_file = dir.path().join("config.json");
    let settings = |insecure: &[&str]| RegistrySettings {
        insecure_registries: insecure.iter().map(|text| (*text).to_owned()).collect(),
        auth_file: Some(auth_file.clone()),
        ..RegistrySettings::default()
    };
    let write = |password: &str| {
        let entry = serde_json::json!({"auths": {server.address.clone(): {"username": "user", "password": password}}});
        std::fs::write(&auth_file, entry.to_string()).unwrap();
    };
    let (_state, store) = store();
    write("wrong");
    let both = [server.address.as_str(), elsewhere.address.as_str()];
    let error = pull(&store, &Registry::new(&settings(&both)).unwrap(), &server.name()).await.unwrap_err();
    assert_eq!(error.reason(), "Unauthorized", "{error}");
    write("secret");
    let error = pull(&store, &Registry::new(&settings(&both[..1])).unwrap(), &server.name()).await.unwrap_err();
    assert!(error.to_string().contains("redirects to plain HTTP"), "{error}");
    pull(&store, &Registry::new(&settings(&both)).unwrap(), &server.name()).await.unwrap();
    let followed = elsewhere.asked();
    assert_eq!(followed.len(), 1);
    assert_eq!(followed[0].header("authorization"), None, "the token must not reach another host");
    assert!(!format!("{error:?}").contains("secret"));
}

//! Registries that lie, break off or send nonsense: every one has its stable reason, and nothing of it stays.

use crate::{
    fixture::{Image, descriptor, gzip, layer, noise, store, tar},
    http::{Answer, Server, serve},
    pull::pull,
};
use serde_json::{Value, json};
use strata_image::{Registry, RegistrySettings};
use strata_model::{ImageName, limits::IMAGE_METADATA_BYTES_MAX};

/// Pulls from a registry that answers so, and gives the reason of the error.
async fn reason(
    answer: impl Fn(&Image, &crate::http::Asked) -> Answer + Send + Sync + 'static,
) -> (&'static str, String) {
    reason_with(Image::simple(), answer).await
}

async fn reason_with(
    image: Image,
    answer: impl Fn(&Image, &crate::http::Asked) -> Answer + Send + Sync + 'static,
) -> (&'static str, String) {
    let served = image.clone();
    let server = Server::start(move |asked| answer(&served, asked)).await;
    let (dir, store) = store();
    let error = pull(&store, &server.client(), &server.name()).await.unwrap_err();
    assert!(store.images().is_empty(), "{error}");
    assert!(store.layers().list().unwrap().is_empty(), "{error}");
    let left: Vec<_> = std::fs::read_dir(dir.path().join("layers"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("writing"))
        .collect();
    assert!(left.is_empty(), "half-written layers stay: {left:?}");
    (error.reason(), error.to_string())
}

fn edited(image: &Image, edit: impl Fn(&mut Value)) -> Vec<u8> {
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    edit(&mut manifest);
    serde_json::to_vec(&manifest).unwrap()
}

fn is_layer(image: &Image, path: &str) -> bool {
    path.contains(&image.layer_blobs[0].to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_of_a_layer() {
    let other = layer("other");
    let blob = gzip(&other);
    let image = Image::simple();
    // As long as the right one, so that only the digest can tell.
    let mut same_length = image.layer_blob(0).clone();
    let middle = same_length.len() / 2;
    same_length[middle] ^= 1;
    let (why, text) =
        reason(
            move |image, asked| {
                if is_layer(image, &asked.path) { Answer::new(200, same_length.clone()) } else { serve(image, asked) }
            },
        )
        .await;
    assert_eq!(why, "DigestMismatch", "{text}");
    assert!(text.contains("registry 127.0.0.1"), "{text}");
    // The blob is what the manifest names, but not what the config names.
    let (why, text) = reason(move |image, asked| {
        if asked.path.contains("/manifests/") {
            let layers = json!([descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &blob)]);
            return Answer::new(200, edited(image, |manifest| manifest["layers"] = layers.clone()));
        }
        let wanted = strata_model::Digest::of(&blob).to_string();
        if asked.path.contains(&wanted) { Answer::new(200, blob.clone()) } else { serve(image, asked) }
    })
    .await;
    assert_eq!(why, "DigestMismatch", "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_too_short_or_too_long() {
    let (why, text) = reason(|image, asked| {
        let mut whole = serve(image, asked);
        if is_layer(image, &asked.path) {
            if asked.offset() > 0 {
                return Answer::new(416, "");
            }
            whole.body.truncate(60);
        }
        whole
    })
    .await;
    assert_eq!(why, "Corrupt", "{text}");
    let (why, text) = reason(|image, asked| {
        let mut whole = serve(image, asked);
        if is_layer(image, &asked.path) {
            whole.body.extend_from_slice(&[0; 100]);
        }
        whole
    })
    .await;
    assert_eq!(why, "Corrupt", "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_points_outside() {
    let bad = tar(&[("../../etc/evil", b"x")], &[]);
    let (why, text) = reason_with(Image::new(&[(bad.clone(), gzip(&bad))]), serve).await;
    assert_eq!(why, "LayerMalformed", "{text}");
}

#[tokio::test]
async fn a_manifest_without_end() {
    let huge = || Answer::new(200, vec![b' '; IMAGE_METADATA_BYTES_MAX + 1]);
    let (why, text) =
        reason(move |image, asked| if asked.path.contains("manifests") { huge() } else { serve(image, asked) }).await;
    assert_eq!(why, "ManifestTooLarge", "{text}");
    let endless = move || Answer { endless: true, ..huge() };
    let (why, text) =
        reason(move |image, asked| if asked.path.contains("manifests") { endless() } else { serve(image, asked) })
            .await;
    assert_eq!(why, "ManifestTooLarge", "{text}");
    let (why, text) =
        reason(move |image, asked| if asked.path.contains("blobs") { huge() } else { serve(image, asked) }).await;
    assert_eq!(why, "ManifestTooLarge", "{text}");
}

#[tokio::test]
async fn documents_that_are_no_images() {
    type Edit = fn(&mut Value);
    let cases: [(&str, Edit, &str); 9] = [
        ("schema 1", |m| *m = json!({"schemaVersion": 1, "fsLayers": [], "name": "x"}), "UnsupportedMediaType"),
        (
            "artifact",
            |m| m["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json"),
            "UnsupportedMediaType",
        ),
        ("strange layer", |m| m["layers"][0]["mediaType"] = json!("application/wasm"), "UnsupportedMediaType"),
        ("path as digest", |m| m["layers"][0]["digest"] = json!("sha256:../../../../../../etc/passwd"), "InvalidImage"),
        ("digest in capitals", |m| m["config"]["digest"] = json!(format!("sha256:{}", "A".repeat(64))), "InvalidImage"),
        ("manifest and index", |m| m["manifests"] = json!([]), "InvalidImage"),
        ("layers the config lacks", |m| m["layers"] = json!([m["layers"][0], m["layers"][0]]), "InvalidImage"),
        ("128 layers", |m| m["layers"] = vec![m["layers"][0].clone(); 128].into(), "InvalidImage"),
        ("negative size", |m| m["layers"][0]["size"] = json!(-1), "InvalidImage"),
    ];
    for (what, edit, want) in cases {
        let (why, text) = reason(move |image, asked| {
            if asked.path.contains("manifests") { Answer::new(200, edited(image, edit)) } else { serve(image, asked) }
        })
        .await;
        assert_eq!(why, want, "{what}: {text}");
    }
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let (why, text) = reason(move |_, _| Answer::new(200, nested.clone())).await;
    assert_eq!(why, "InvalidImage", "{text}");
}

#[tokio::test]
async fn a_manifest_that_is_not_what_its_digest_says() {
    let claims = |image: &Image, asked: &crate::http::Asked| {
        serve(image, asked).with("docker-content-digest", &strata_model::Digest::of(b"other").to_string())
    };
    let (why, text) = reason(claims).await;
    assert_eq!(why, "DigestMismatch", "{text}");
    let server = Server::registry(Image::simple()).await;
    let pinned = format!("{}/x@{}", server.address, strata_model::Digest::of(b"other"));
    let error = server.client().resolve(&ImageName::parse(&pinned).unwrap()).await.unwrap_err();
    assert_eq!(error.reason(), "DigestMismatch");
}

#[tokio::test]
async fn registries_that_refuse_or_are_not_there() {
    let (why, text) = reason(|_, _| Answer::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#)).await;
    assert_eq!(why, "ImageNotFound", "{text}");
    let (why, text) = reason(|_, _| Answer::new(401, "").with("www-authenticate", "Basic realm=\"x\"")).await;
    assert_eq!(why, "Unauthorized", "{text}");
    let (why, text) = reason(|_, _| Answer::new(403, "")).await;
    assert_eq!(why, "Unauthorized", "{text}");
    let (why, text) = reason(|_, _| Answer::new(503, "")).await;
    assert_eq!(why, "RegistryUnreachable", "{text}");
    let (why, text) = reason(|_, asked| Answer::new(302, "").with("location", &asked.path)).await;
    assert_eq!(why, "RegistryUnreachable", "{text}");
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let settings = RegistrySettings { insecure_registries: vec![gone.to_string()], ..RegistrySettings::default() };
    let name = ImageName::parse(&format!("{gone}/x")).unwrap();
    let error = Registry::new(&settings).unwrap().resolve(&name).await.unwrap_err();
    assert_eq!(error.reason(), "RegistryUnreachable");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_breaks_off_for_good() {
    let tar = tar(&[("noise", &noise(1 << 20, 3))], &[]);
    let (why, text) = reason_with(Image::new(&[(tar.clone(), gzip(&tar))]), |image, asked| {
        let whole = serve(image, asked);
        match (is_layer(image, &asked.path), asked.offset()) {
            (true, 0) => whole.cut(500_000),
            (true, _) => whole.cut(0),
            _ => whole,
        }
    })
    .await;
    assert_eq!(why, "RegistryUnreachable", "{text}");
}

//! Archives: OCI layouts and docker archives, sound and hostile.

use crate::fixture::{config, gzip, layer, open, store, tar, zstd};
use std::{collections::BTreeMap, io};
use strata_image::{ImageStore, ImportedImage, Result};
use strata_model::{Digest, ImageName};

fn docker(
    config_name: &str,
    config: &[u8],
    layers: &[(&str, &[u8])],
    links: &[(&str, &str)],
    order: &[&str],
) -> Vec<u8> {
    let manifest = serde_json::to_vec(&serde_json::json!([{
        "Config": config_name, "RepoTags": ["a/b:1"], "Layers": order
    }]))
    .unwrap();
    let mut files = vec![("manifest.json", &manifest[..]), (config_name, config)];
    files.extend(layers);
    tar(&files, links)
}

async fn import(store: &ImageStore, archive: Vec<u8>) -> Result<Vec<ImportedImage>> {
    store.import(io::Cursor::new(archive), None).await
}

#[tokio::test]
async fn a_docker_archive_has_one_digest_however_it_is_packed() {
    let (one, two) = (layer("1"), layer("2"));
    let config = config(&[&one, &two, &one]);
    let name = format!("{}.json", Digest::of(&config).hex());
    let plain = docker(
        &name,
        &config,
        &[("1/layer.tar", &one), ("2/layer.tar", &two)],
        &[("3/layer.tar", "../1/layer.tar")],
        &["1/layer.tar", "2/layer.tar", "3/layer.tar"],
    );
    let packed = docker(&name, &config, &[("x", &gzip(&one)), ("y", &zstd(&two))], &[], &["x", "y", "x"]);
    let mut digests = Vec::new();
    for archive in [plain.clone(), packed, gzip(&plain), zstd(&plain)] {
        let (_dir, store) = store();
        let images = import(&store, archive).await.unwrap();
        assert_eq!(images[0].name.to_string(), "docker.io/a/b:1");
        assert_eq!(images[0].image.command(), ["/a"]);
        assert_eq!(images[0].image.layers.len(), 3);
        assert!(store.has_image(&images[0].image.digest) && !images[0].image.from_registry);
        digests.push(images[0].image.digest.clone());
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[tokio::test]
async fn hostile_docker_archives_are_refused_and_leave_nothing() {
    let one = layer("1");
    let right = config(&[&one]);
    let two_ids = config(&[&one, &one]);
    let wrong_name = format!("{}.json", Digest::of(b"other").hex());
    let other = layer("other");
    let cases: BTreeMap<&str, (Vec<u8>, &str)> = BTreeMap::from([
        ("layer differs", (docker("c", &right, &[("l", &other)], &[], &["l"]), "DigestMismatch")),
        ("config differs from its name", (docker(&wrong_name, &right, &[("l", &one)], &[], &["l"]), "DigestMismatch")),
        ("fewer layers than diff IDs", (docker("c", &two_ids, &[("l", &one)], &[], &["l"]), "InvalidImage")),
        ("layer missing", (docker("c", &right, &[], &[], &["../../../../etc/passwd"]), "InvalidImage")),
        ("link loop", (docker("c", &right, &[], &[("l", "m"), ("m", "l")], &["l"]), "InvalidImage")),
        ("link to the host", (docker("c", &right, &[], &[("l", "/etc/passwd")], &["l"]), "InvalidImage")),
        ("cut gzip layer", (docker("c", &right, &[("l", &gzip(&one)[..20])], &[], &["l"]), "Corrupt")),
        ("no archive", (vec![7; 3000], "InvalidImage")),
        ("empty", (Vec::new(), "InvalidImage")),
        ("other tar", (layer("1"), "InvalidImage")),
        ("cut archive", (docker("c", &right, &[("l", &one)], &[], &["l"])[..2700].to_vec(), "Corrupt")),
    ]);
    for (what, (archive, reason)) in cases {
        let (dir, store) = store();
        let error = import(&store, archive).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{what}: {error}");
        assert!(store.images().is_empty(), "{what}");
        assert_eq!(std::fs::read_dir(dir.path().join("images")).unwrap().count(), 0, "{what}");
    }
}

fn oci(config: &[u8], layers: &[&[u8]], annotations: serde_json::Value, platform: Option<&str>) -> (Vec<u8>, Digest) {
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let descriptor = |media_type: &str, bytes: &[u8]| serde_json::json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": layers.iter().map(|l| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", l)).collect::<Vec<_>>()
    }))
    .unwrap();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = annotations;
    if let Some(architecture) = platform {
        entry["platform"] = serde_json::json!({"os": "linux", "architecture": architecture});
    }
    let index = serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": [entry]})).unwrap();
    let mut files = vec![
        ("./oci-layout".to_owned(), &br#"{"imageLayoutVersion":"1.0.0"}"#[..]),
        ("./index.json".to_owned(), &index),
        (path(&manifest), &manifest),
        (path(config), config),
    ];
    files.extend(layers.iter().map(|layer| (path(layer), *layer)));
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    (tar(&files, &[]), Digest::of(&manifest))
}

#[tokio::test]
async fn an_oci_layout_keeps_its_digest_and_needs_a_whole_name() {
    let one = layer("1");
    let (archive, digest) =
        oci(&config(&[&one]), &[&gzip(&one)], serde_json::json!({"org.opencontainers.image.ref.name": "v1"}), None);
    let (_dir, store) = store();
    assert_eq!(import(&store, archive.clone()).await.unwrap_err().reason(), "NameNeeded");
    let name = ImageName::parse("r.example/x:1").unwrap();
    let images = store.import(io::Cursor::new(archive), Some(name.clone())).await.unwrap();
    assert_eq!((images.len(), &images[0].name, &images[0].image.digest), (1, &name, &digest));
    let (archive, _) =
        oci(&config(&[&one]), &[&gzip(&one)], serde_json::json!({"org.opencontainers.image.ref.name": "x/y:1"}), None);
    assert_eq!(import(&store, archive).await.unwrap()[0].name.to_string(), "docker.io/x/y:1");
}

#[tokio::test]
async fn layouts_for_other_machines_or_with_wrong_blobs_are_refused() {
    let one = layer("1");
    let names = serde_json::json!({"io.containerd.image.name": "r.example/x:1"});
    let (_dir, store) = store();
    let (archive, _) = oci(&config(&[&one]), &[&gzip(&one)], names.clone(), Some("vax"));
    let error = import(&store, archive).await.unwrap_err();
    assert_eq!(error.reason(), "UnsupportedPlatform");
    assert!(error.to_string().contains("linux/vax"), "{error}");
    // The blob is what its name says, but not what the config says.
    let (archive, _) = oci(&config(&[&one]), &[&gzip(&layer("2"))], names, None);
    assert_eq!(import(&store, archive).await.unwrap_err().reason(), "DigestMismatch");
    assert!(store.images().is_empty());
}

#[tokio::test]
async fn removing_an_image_leaves_what_others_and_leases_need() {
    let (one, two) = (layer("1"), layer("2"));
    let (_dir, store) = store();
    let both = import(&store, docker("c", &config(&[&one, &two]), &[("1", &one), ("2", &two)], &[], &["1", "2"]))
        .await
        .unwrap();
    let first = import(&store, docker("c", &config(&[&one]), &[("1", &one)], &[], &["1"])).await.unwrap();
    let (both, first) = (both[0].image.digest.clone(), first[0].image.digest.clone());
    let mut lease = store.lease();
    lease.hold(&both);
    assert_eq!(store.remove(&both).unwrap_err().reason(), "ImageInUse");
    drop(lease);
    let mut lease = store.lease();
    lease.hold(&Digest::of(&two));
    assert!(store.remove(&both).unwrap() > 0);
    assert!(store.has_image(&first) && !store.has_image(&both));
    assert!(store.layers().contains(&Digest::of(&two)).unwrap().is_some());
    drop(lease);
    store.remove(&first).unwrap();
    assert!(store.layers().contains(&Digest::of(&one)).unwrap().is_none());
}

#[tokio::test]
async fn images_are_found_again_after_a_restart() {
    let one = layer("1");
    let (dir, store) = store();
    let images = import(&store, docker("c", &config(&[&one]), &[("1", &one)], &[], &["1"])).await.unwrap();
    let image = images[0].image.clone();
    drop(store);
    let store = open(dir.path());
    let again = store.image(&image.digest).unwrap();
    assert_eq!((&again.layers, &again.config_digest), (&image.layers, &image.config_digest));
    store.layers().remove(&image.layers[0].diff_id).unwrap();
    assert!(!store.has_image(&image.digest), "an image without a layer is none");
}

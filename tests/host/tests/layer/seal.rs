//! Writable layers sealed into layer files: what a container saw is what the new layer shows, here, by umoci and by GNU tar.

use std::os::fd::AsFd;
use std::path::Path;

use strata_layer::{SealOptions, prepare_writable};

use super::archive::Archive;
use super::inventory::{self, Leave, assert_same};
use super::scene::{Scene, UserNamespace, sh, write, write_file};

const SAME: Leave = Leave { directory_times: false, links: false, root: false };

/// A base with something to change in every way.
fn base(scene: &Scene) -> std::path::PathBuf {
    let made = scene.make("made");
    sh(
        &made,
        "mkdir -p etc keep gone again/sub deep/a/b/c tmp; chmod 1777 tmp; for f in etc/passwd keep/a keep/b gone/x again/old again/sub/old \
         deep/a/b/c/f; do echo $f > $f; done; ln keep/a keep/hard; ln -s keep/a link; echo f > to-dir; mkdir to-file; echo x > to-file/x; \
         chown -R 33:44 keep; touch -d '2001-02-03 04:05:06.789' etc/passwd",
    );
    let tar = scene.path("base.tar");
    sh(&made, &format!("tar -cf {} --format=pax --numeric-owner .", tar.display()));
    tar
}

/// What a container does; it runs as the namespace's root.
const CHANGES: &str = r#"rm -r gone; rm -r again; mkdir again; echo new > again/new; echo more >> etc/passwd; mv keep/b keep/moved; chmod 700 .
    rm to-dir; mkdir to-dir; echo in > to-dir/in; rm -r to-file; echo now > to-file; rm link; ln -s /elsewhere link; chmod 2755 deep/a
    mkfifo pipe; echo 1 > hard-1; ln hard-1 hard-2; ln hard-1 tmp/hard-3; chown 5:6 hard-1; chmod 4711 hard-1
    truncate -s 50M holes; printf data | dd of=holes bs=1 seek=20000000 conv=notrunc 2>/dev/null; truncate -s 3M all-hole
    touch -d '1955-11-05 06:15:00.5' old; touch -d '2500-01-01' far; echo x > "$(printf 'odd\nname\351')"; head -c 200000 /dev/urandom > random
    mkdir -p $(printf 'long%.0s' $(seq 50))/$(printf 'name%.0s' $(seq 50)); echo deep > $(printf 'long%.0s' $(seq 50))/$(printf 'name%.0s' $(seq 50))/file
    ln -s $(printf 'target/%.0s' $(seq 40)) long-link; setfattr -n user.note -v 'a b' keep/a; setfattr -n user.dir -v 1 again
    setfacl -m u:7:rw hard-1; cp /bin/true capable; setcap cap_net_raw+ep capable; chown 65535 far"#;

#[test]
fn sealed_layer_shows_what_the_container_saw() {
    let scene = Scene::new();
    let store = scene.store();
    let base_tar = base(&scene);
    let base = write_file(&store, &base_tar).digest;
    let namespace = UserNamespace::new();
    let writable = scene.make("pod");
    let lowers = [base.clone()];
    prepare_writable(&writable, store.root_attributes(&lowers).unwrap()).unwrap();
    let live = store.mount_overlay(&lowers, &writable, Some(namespace.fd.as_fd()), true).unwrap();
    let live = scene.attach(&live, "live");
    namespace.sh(&live, CHANGES);
    let _socket = std::os::unix::net::UnixListener::bind(writable.join("u/socket")).unwrap();
    let sealed = store.seal(&writable, SealOptions::default()).unwrap();
    store.verify(&sealed.digest).unwrap();
    // The same again gives the same layer, and what is sparse has cost nothing.
    assert_eq!(store.seal(&writable, SealOptions::default()).unwrap().digest, sealed.digest);
    assert!(sealed.tar_bytes < 2 << 20, "{} bytes", sealed.tar_bytes);
    std::fs::remove_file(writable.join("u/socket")).unwrap();

    let stack = [base.clone(), sealed.digest.clone()];
    let view = scene.attach(&store.mount_read_only(&stack, Some(namespace.fd.as_fd())).unwrap(), "view");
    // Removing the socket changed the root's time.
    let ours = inventory::take(&view, Leave { directory_times: true, ..SAME });
    assert_same(&ours, &inventory::take(&live, Leave { directory_times: true, ..SAME }));
    assert!(ours.len() > 30 && ours.keys().any(|path| path.starts_with("again/new")));

    // Other programs read the tar alike; plain ids, so without the namespace.
    let view = scene.attach(&store.mount_read_only(&stack, None).unwrap(), "plain");
    let oci = scene.make("oci");
    let tar = scene.path("sealed.tar");
    std::io::copy(&mut store.open_tar(&sealed.digest).unwrap(), &mut std::fs::File::create(&tar).unwrap()).unwrap();
    sh(
        &oci,
        &format!(
            "umoci init --layout image; umoci new --image image:t; umoci raw add-layer --image image:t {}; \
             umoci raw add-layer --image image:t {}; umoci unpack --image image:t bundle",
            base_tar.display(),
            tar.display()
        ),
    );
    // A link that the container broke still counts in the layer below; umoci cannot set times beyond 2038.
    let leave = Leave { directory_times: true, links: true, root: true };
    let (mut ours, mut theirs) = (inventory::take(&view, leave), inventory::take(&oci.join("bundle/rootfs"), leave));
    assert!(ours.remove(Path::new("far")).is_some() && theirs.remove(Path::new("far")).is_some());
    assert_same(&ours, &theirs);
    let listed = sh(Path::new("/"), &format!("tar -tf {} | sort", tar.display()));
    for name in [".wh.gone", "again/.wh..wh..opq", "keep/.wh.b", ".wh.again"] {
        assert_eq!(listed.lines().any(|line| line == name), name != ".wh.again", "{name}\n{listed}");
    }
}

#[test]
fn newest_time_makes_layers_reproducible() {
    let scene = Scene::new();
    let store = scene.store();
    let base = write(&store, &Archive::new().dir("./").file("a", b"1").end()).unwrap().digest;
    let namespace = UserNamespace::new();
    let seal = |name: &str| {
        let writable = scene.make(name);
        prepare_writable(&writable, store.root_attributes(std::slice::from_ref(&base)).unwrap()).unwrap();
        let lowers = [base.clone()];
        let root = store.mount_overlay(&lowers, &writable, Some(namespace.fd.as_fd()), true).unwrap();
        let root = scene.attach(&root, &format!("root-{name}"));
        namespace.sh(&root, "mkdir d; echo x > d/x; echo y >> a; touch -d @50 early");
        store.seal(&writable, SealOptions { newest_mtime: Some(1000) }).unwrap().digest
    };
    let first = seal("one");
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(first, seal("two"));
    let view = scene.attach(&store.mount_read_only(&[base.clone(), first], None).unwrap(), "view");
    assert_eq!(sh(&view, "stat -c %Y d/x a early | tr '\\n' ' '"), "1000 1000 50 ");
}

#[test]
fn empty_writable_layer_is_an_almost_empty_layer() {
    let scene = Scene::new();
    let store = scene.store();
    let writable = scene.make("pod");
    prepare_writable(&writable, Default::default()).unwrap();
    assert_eq!(store.seal(&writable, SealOptions::default()).unwrap().entries, 1);
    // A writable layer that is not there is an error that names it.
    let missing = store.seal(&scene.path("nowhere"), SealOptions::default()).unwrap_err();
    assert!(missing.to_string().contains("nowhere"), "{missing}");
    assert_eq!(store.list().unwrap().len(), 1);
}

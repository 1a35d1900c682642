//! Container roots: stacked layers against umoci, writes through id-mapped overlays, mounts that are made once.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use strata_layer::{LayerError, MountMode, RootAttributes, discard_writable, prepare_writable};
use strata_model::Digest;

use super::archive::Archive;
use super::inventory::{self, Leave, assert_same};
use super::scene::{Scene, UserNamespace, sh, write, write_file};

/// Layers with everything that a layer can do to those below.
fn stack() -> Vec<Vec<u8>> {
    let base = Archive::new()
        .dir("./")
        .dir("keep/")
        .file("keep/a", b"a")
        .file("keep/b", b"b")
        .dir("gone/")
        .file("gone/x", b"x")
        .dir("opaque/")
        .file("opaque/old", b"old")
        .dir("opaque/sub/")
        .file("opaque/sub/deep", b"deep")
        .dir("again/")
        .file("again/old", b"old")
        .file("file-to-dir", b"f")
        .dir("dir-to-file/")
        .file("dir-to-file/in", b"in")
        .symlink("link-to-file", "keep/a")
        .dir("meta/")
        .file("meta/m", b"m");
    let middle = Archive::new()
        .dir("keep/")
        .file("keep/.wh.a", b"")
        .file(".wh.gone", b"")
        .dir("opaque/")
        .file("opaque/new", b"new")
        .file("opaque/.wh..wh..opq", b"")
        .file(".wh.again", b"")
        .dir("again/")
        .file("again/new", b"new")
        .dir("file-to-dir/")
        .file("file-to-dir/in", b"in")
        .file("dir-to-file", b"now a file")
        .file("link-to-file", b"now a file")
        .dir("meta/")
        .file("meta/.wh.not-there", b"");
    let top = Archive::new()
        .dir("keep/")
        .file("keep/a", b"a is back")
        .dir("opaque/")
        .dir("opaque/sub/")
        .file("opaque/sub/fresh", b"fresh")
        .dir("again/")
        .file("again/.wh.new", b"")
        .file("again/newest", b"newest");
    [base, middle, top].map(Archive::end).into()
}

#[test]
fn stacked_layers_show_what_umoci_unpacks() {
    stacked_layers(false);
}

#[test]
fn stacked_layers_by_path_show_the_same() {
    stacked_layers(true);
}

fn stacked_layers(by_path: bool) {
    let scene = Scene::new();
    let store = scene.store();
    if by_path {
        store.make_overlays_by_path();
    }
    let oci = scene.make("oci");
    sh(&oci, "umoci init --layout image; umoci new --image image:t");
    let mut layers = Vec::new();
    for (nth, tar) in stack().into_iter().enumerate() {
        layers.push(write(&store, &tar).unwrap().digest);
        std::fs::write(oci.join(format!("{nth}.tar")), &tar).unwrap();
        sh(&oci, &format!("umoci raw add-layer --image image:t {nth}.tar"));
        let bundle = format!("bundle-{nth}");
        sh(&oci, &format!("umoci unpack --image image:t {bundle}"));
        let root = scene.attach(&store.mount_read_only(&layers, None).unwrap(), &format!("root-{nth}"));
        let leave = Leave { directory_times: true, links: true, root: true };
        assert_same(&inventory::take(&root, leave), &inventory::take(&oci.join(bundle).join("rootfs"), leave));
    }
}

#[test]
fn opaque_root_hides_all_layers_below() {
    let scene = Scene::new();
    let store = scene.store();
    let below = write(&store, &Archive::new().file("below", b"1").end()).unwrap().digest;
    let opaque = write(&store, &Archive::new().file(".wh..wh..opq", b"").file("here", b"2").end()).unwrap().digest;
    let above = write(&store, &Archive::new().file("above", b"3").end()).unwrap().digest;
    let root = scene.attach(&store.mount_read_only(&[below, opaque, above], None).unwrap(), "root");
    assert_eq!(sh(&root, "ls"), "above\nhere\n");
}

#[test]
fn container_writes_leave_layers_and_plain_ids_alone() {
    container_writes(false);
}

#[test]
fn container_writes_by_path_do_the_same() {
    container_writes(true);
}

fn container_writes(by_path: bool) {
    let scene = Scene::new();
    let store = scene.store();
    if by_path {
        store.make_overlays_by_path();
    }
    let mounts = || std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let tar = scene.path("base.tar");
    let made = scene.make("made");
    sh(
        &made,
        "mkdir -p etc bin var/lib/app; echo root:x > etc/passwd; echo 1 > var/lib/app/data; chown -R 33:44 var/lib/app; mknod null c 1 3; chmod 666 null",
    );
    sh(&made, &format!("tar -cf {} --numeric-owner .", tar.display()));
    let layer = write_file(&store, &tar).digest;
    let path = store.path(&layer);
    let sum = || sh(Path::new("/"), &format!("sha256sum < {}", path.display()));
    let before = sum();
    let namespace = UserNamespace::new();
    let writable = scene.make("pod");
    prepare_writable(&writable, store.root_attributes(std::slice::from_ref(&layer)).unwrap()).unwrap();
    let lowers = [layer.clone()];
    store.ensure_mounted(&layer).unwrap();
    let before_overlay = mounts();
    let root = store.mount_overlay(&lowers, &writable, Some(namespace.fd.as_fd()), true).unwrap();
    assert_eq!(mounts(), before_overlay, "the mount table does not grow");
    let root = scene.attach(&root, "root");
    let script = "stat -c %u:%g . etc etc/passwd var/lib/app/data | tr '\\n' ' '
        for i in $(seq 1000); do echo $i > new-$i; done; chown 33 new-1; echo more >> etc/passwd; mv bin sbin 2>/dev/null || true
        echo 2 > var/lib/app/data; rm var/lib/app/data; mkdir -p new/dir; ln new-2 new-3-link; chmod 4711 new-4; mkfifo pipe
        if echo x > null 2>/dev/null; then echo device works; fi";
    let said = namespace.sh(&root, script);
    assert_eq!(said, "0:0 0:0 0:0 33:44 ", "ids inside; the image's device file must not work");
    assert_eq!(std::fs::metadata(root.join("new-1")).unwrap().uid(), 100_033, "as the host sees it");
    let upper = writable.join("u");
    let owner = |name: &str| std::fs::symlink_metadata(upper.join(name)).unwrap().uid();
    assert_eq!((owner("new-1"), owner("new-2"), owner("etc/passwd"), owner("var/lib/app")), (33, 0, 0, 33));
    assert_eq!(std::fs::metadata(upper.join("new-4")).unwrap().mode() & 0o7777, 0o4711);
    assert_eq!(sum(), before);
    store.verify(&layer).unwrap();

    // Two containers of one image see different private files.
    let other = scene.make("other");
    prepare_writable(&other, RootAttributes::default()).unwrap();
    let other_root =
        scene.attach(&store.mount_overlay(&lowers, &other, Some(namespace.fd.as_fd()), true).unwrap(), "root2");
    assert!(!other_root.join("new-1").exists() && other_root.join("var/lib/app/data").exists());

    // The same boot: a volatile layer is mounted again after its mark is taken away, and not without.
    nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH).unwrap();
    let again = || store.mount_overlay(&lowers, &writable, Some(namespace.fd.as_fd()), true);
    assert!(matches!(again(), Err(LayerError::Mount { .. })));
    prepare_writable(&writable, RootAttributes::default()).unwrap();
    let root = scene.attach(&again().unwrap(), "root3");
    assert!(root.join("new-1000").exists());
}

#[test]
fn image_without_layers_has_an_empty_root() {
    let scene = Scene::new();
    let store = scene.store();
    let namespace = UserNamespace::new();
    let writable = scene.make("pod");
    prepare_writable(&writable, RootAttributes { mode: 0o750, uid: 5, gid: 6 }).unwrap();
    let root = store.mount_overlay(&[], &writable, Some(namespace.fd.as_fd()), false).unwrap();
    let root = scene.attach(&root, "root");
    assert_eq!(namespace.sh(&root, "stat -c %u:%g:%a .; ls -A; echo 1 > f; cat f"), "5:6:750\n1\n");
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn namespace_without_a_root_is_refused() {
    let scene = Scene::new();
    let store = scene.store();
    let namespace = UserNamespace::with_map("1 100000 65535");
    let writable = scene.make("pod");
    prepare_writable(&writable, RootAttributes::default()).unwrap();
    let error = store.mount_overlay(&[], &writable, Some(namespace.fd.as_fd()), false).unwrap_err();
    assert!(matches!(error, LayerError::RootUnmapped { .. }), "{error}");
}

#[test]
fn many_threads_and_a_restarted_agent_make_one_mount() {
    let scene = Scene::new();
    let store = scene.store();
    let layer = write(&store, &Archive::new().file("a", b"1").end()).unwrap().digest;
    let places: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| store.ensure_mounted(&layer).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    drop(store);
    let store = scene.store();
    let place = store.ensure_mounted(&layer).unwrap();
    assert!(places.iter().all(|other| *other == place));
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let here = table.lines().filter(|line| line.split(' ').nth(4) == place.to_str());
    assert_eq!(here.count(), 1);
}

#[test]
fn removal_waits_for_users_and_leaves_nothing() {
    let scene = Scene::new();
    let store = scene.store();
    let layer = write(&store, &Archive::new().file("a", b"1").end()).unwrap().digest;
    let place = store.ensure_mounted(&layer).unwrap();
    let hold = store.hold(std::slice::from_ref(&layer));
    assert!(matches!(store.remove(&layer), Err(LayerError::InUse(_))));
    drop(hold);
    let open = std::fs::File::open(place.join("a")).unwrap();
    assert!(matches!(store.remove(&layer), Err(LayerError::InUse(_))));
    drop(open);
    store.drop_duplicate_cache(&layer).unwrap();
    store.remove(&layer).unwrap();
    store.remove(&layer).unwrap();
    assert!(!place.exists() && !store.path(&layer).exists());
    assert!(matches!(store.ensure_mounted(&layer), Err(LayerError::Missing(_))));
}

#[test]
fn store_on_tmpfs_uses_loop_devices_and_gives_them_back() {
    let scene = Scene::new();
    let state = scene.make("state");
    nix::mount::mount(Some("t"), &state, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    let store = scene.store();
    assert_eq!(store.mount_mode(), MountMode::Loop);
    let tar = Archive::new().file("a", b"from a loop device").end();
    let layer = write(&store, &tar).unwrap().digest;
    assert_eq!(layer, Digest::of(&tar));
    let place = store.ensure_mounted(&layer).unwrap();
    assert_eq!(std::fs::read(place.join("a")).unwrap(), b"from a loop device");
    let backing = |layer: &Digest| {
        let devices = std::fs::read_dir("/sys/block")
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path().join("loop/backing_file")).ok());
        devices.filter(|file| file.contains(layer.hex())).count()
    };
    assert_eq!(backing(&layer), 1);
    store.remove(&layer).unwrap();
    assert_eq!(backing(&layer), 0);
}

#[test]
fn discarding_removes_whatever_a_container_made() {
    let scene = Scene::new();
    let writable = scene.make("pod");
    let outside = scene.make("outside");
    sh(&outside, "echo 1 > precious");
    prepare_writable(&writable, RootAttributes::default()).unwrap();
    sh(
        &writable.join("u"),
        "mkdir -p a/b; chmod 000 a/b a; ln -s ../../outside out; ln -s /etc etc; touch immutable; chattr +i immutable
         mkdir fixed; touch fixed/in; chattr +a fixed; for i in $(seq 500); do mkdir d; echo x > f; cd -P d; done",
    );
    discard_writable(&writable).unwrap();
    assert_eq!(sh(&writable, "ls -A"), "");
    assert_eq!(sh(&outside, "cat precious"), "1\n");
    discard_writable(&writable).unwrap();
}

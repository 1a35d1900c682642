//! A mounted layer shows what GNU tar unpacks.

use std::path::Path;

use super::inventory::{self, Leave, assert_same};
use super::scene::{Scene, sh, write_file};

const TREE: &str = r#"
umask 022
mkdir -p t/deep/er/est t/empty t/-dash t/'!bang' t/.hidden t/odd t/many t/zero
printf 'hello\n' > t/file; : > t/zero/a; : > t/zero/b
printf 'x' > t/odd/'a b'; printf 'y' > t/odd/$'new\nline'; printf 'z' > t/odd/$'\xff\xfe'; printf w > "t/odd/$(printf 'n%.0s' {1..255})"
printf 1 > t/odd/!; printf 2 > t/odd/-; printf 3 > t/odd/...
for i in $(seq 1 3000); do echo $i > t/many/file-$i; done
for n in 1 511 512 513 4095 4096 4097 1000000; do head -c $n /dev/urandom > t/size-$n; done
ln t/file t/link1; ln t/file t/deep/er/link2; ln t/size-513 t/many/zz
ln -s file t/sym; ln -s /etc/passwd t/abs; ln -s ../../.. t/deep/up; ln t/sym t/sym-hard -P
for n in 50 400 480 511 512 513 1000 4095; do ln -s "$(head -c $n /dev/zero | tr '\0' 'q')" t/symlink-$n; done
mkfifo t/fifo; mknod t/char c 1 3; mknod t/block b 259 70000; mknod t/char-high c 4095 1048575; ln t/char t/char2
chmod 4755 t/file; chmod 2711 t/empty; chmod 1777 t/zero; chmod 0 t/size-1; chmod 000 t/-dash
chown 1234:5678 t/deep; chown 4294967294:4294967293 t/size-4096; chown -h 7:8 t/sym
truncate -s 50M t/sparse; printf data | dd of=t/sparse bs=1 seek=20000000 conv=notrunc status=none
truncate -s 3M t/sparse-end; printf end >> t/sparse-end; truncate -s 1M t/hole-only
head -c 100000 /dev/urandom > t/sparse-odd; truncate -s 300001 t/sparse-odd; printf tail >> t/sparse-odd
touch -d '1901-12-14 00:00:00.5' t/link1; touch -d '2400-01-01 00:00:00.123456789' t/size-512; touch -d @0 t/zero/a
touch -d '2001-01-01 01:02:03.000000001' t/deep/er; touch -h -d '1999-01-01 00:00:00.25' t/sym; touch -d @-1 t/zero/b
"#;

/// Attributes of every kind that a layer keeps: path, name, value.
fn set_attributes(root: &Path) {
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(root.join(path), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("file", "user.small", b"v");
    set("file", "user.empty", b"");
    set("deep/er", "user.big", &[b'b'; 2900]);
    set("empty", "trusted.of.mine", b"1\0=\n");
    set("sym", "trusted.onlink", b"1");
    set("char", "trusted.ondev", b"1");
    set("size-4097", "security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    // user:1000:rwx beside the owner, group, mask and others (struct posix_acl_xattr_entry).
    let entry =
        |tag: u16, perm: u16, id: u32| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat();
    let list = [entry(1, 7, !0), entry(2, 7, 1000), entry(4, 5, !0), entry(16, 7, !0), entry(32, 5, !0)].concat();
    set("deep", "system.posix_acl_default", &[&[2, 0, 0, 0][..], &list].concat());
    set("size-511", "system.posix_acl_access", &[&[2, 0, 0, 0][..], &list].concat());
    for nth in 0..12 {
        set(".hidden", &format!("user.attribute{nth}"), format!("value {nth}").as_bytes());
    }
}

/// Unpacks with GNU tar and compares, in both directions.
fn check(scene: &Scene, tar: &Path, name: &str) {
    let store = scene.store();
    let published = write_file(&store, tar);
    store.verify(&published.digest).unwrap();
    let mounted = store.ensure_mounted(&published.digest).unwrap();
    let unpacked = scene.make(name);
    let tar = tar.display();
    sh(&unpacked, &format!("tar -xf {tar} --xattrs --xattrs-include='*' --numeric-owner -p"));
    let leave = Leave { root: true, ..Leave::default() };
    assert_same(&inventory::take(&mounted, leave), &inventory::take(&unpacked, leave));
}

#[test]
fn odd_tree_in_every_format() {
    let scene = Scene::new();
    let made = scene.make("made");
    sh(&made, TREE);
    set_attributes(&made.join("t"));
    let pax = "--format=pax --xattrs --xattrs-include=*";
    for (name, options) in [
        ("pax", pax.to_owned()),
        ("pax-1.0", format!("{pax} -S --sparse-version=1.0")),
        ("pax-0.1", format!("{pax} -S --sparse-version=0.1")),
        ("pax-0.0", format!("{pax} -S --sparse-version=0.0")),
        ("pax-global", format!("{pax} --pax-option=globexthdr.name=g,mtime=1000000000.5,comment=c")),
        ("gnu", "--format=gnu".to_owned()),
        ("gnu-sparse", "--format=gnu -S".to_owned()),
    ] {
        let tar = scene.path(&format!("{name}.tar"));
        sh(&made, &format!("tar -cf {} {options} --numeric-owner -C t .", tar.display()));
        check(&scene, &tar, name);
    }
}

#[test]
fn fragmented_sparse_file_needs_many_map_blocks() {
    let scene = Scene::new();
    let made = scene.make("made");
    sh(
        &made,
        "for i in $(seq 0 299); do printf 'data %d' $i | dd of=f bs=1 seek=$((i*20480+4096)) conv=notrunc status=none; done",
    );
    for (name, options) in [
        ("gnu", "--format=gnu"),
        ("pax", "--format=pax --sparse-version=1.0"),
        ("pax1", "--format=pax --sparse-version=0.1"),
    ] {
        let tar = scene.path(&format!("{name}.tar"));
        sh(&made, &format!("tar -cSf {} {options} --hole-detection=raw .", tar.display()));
        check(&scene, &tar, name);
    }
}

#[test]
fn the_machine_itself() {
    let scene = Scene::new();
    let tar = scene.path("machine.tar");
    sh(
        Path::new("/"),
        &format!(
            "tar -cf {} --format=pax --xattrs --xattrs-include='*' --numeric-owner etc usr/bin usr/share/doc usr/lib/python3 usr/sbin var/lib/dpkg --no-recursion usr usr/lib usr/share var var/lib 2>/dev/null",
            tar.display()
        ),
    );
    check(&scene, &tar, "machine");
}

//! Hostile and odd archives: refused with the reason, or read as containerd reads them.

use strata_layer::{LayerError, limits};
use strata_model::{Algorithm, Digest};

use super::archive::{Archive, Header};
use super::inventory;
use super::scene::{Scene, sh, write, write_in};

#[test]
fn refused_with_the_reason() {
    let scene = Scene::new();
    let store = scene.store();
    let good = Archive::new().dir("d/").file("d/f", b"data");
    let sparse = |records: &[(&str, &[u8])], data: &[u8]| Archive::new().pax(records).file("s", data).end();
    let many = (limits::MAX_EXTENSION_BYTES + 1) as usize;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("'..'", Archive::new().file("../out", b"x").end()),
        ("'..'", Archive::new().file("a/../../out", b"x").end()),
        ("'..'", Archive::new().file("/../out", b"x").end()),
        ("'..'", Archive::new().pax(&[("path", b"x/..")]).dir("x").end()),
        ("'..'", good.clone().link("l", "../../etc/passwd").end()),
        ("does not have", good.clone().link("l", "/etc/passwd").end()),
        ("does not have", good.clone().link("l", "later").file("later", b"1").end()),
        ("hard link to a directory", good.clone().link("l", "d").end()),
        ("hard link to the root", good.clone().link("l", "/").end()),
        ("no directory", good.clone().file("d/f/below", b"x").end()),
        ("40 symbolic links", Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", b"").end()),
        ("whiteout of no name", Archive::new().file(".wh.", b"").end()),
        ("whiteout of no name", Archive::new().file("d/.wh...", b"").end()),
        ("whiteout of no name", Archive::new().file(".wh..", b"").end()),
        ("name of a whiteout", Archive::new().file(".wh.x/y", b"").end()),
        ("checksum is not a number", good.clone().raw(&[1; 512]).end()),
        (
            "checksum is wrong",
            good.clone()
                .raw(&{
                    let mut block = Header::new("f", b'0', 0).sealed();
                    block[0] ^= 1;
                    block
                })
                .end(),
        ),
        ("truncated", good.0[..good.0.len() - 1].to_vec()),
        ("truncated", good.0[..512 + 512 + 2].to_vec()),
        ("truncated", good.0[..700].to_vec()),
        ("truncated", Archive::new().pax(&[("path", b"x")]).0),
        ("single block of zeros", good.clone().raw(&[0; 512]).file("ghost", b"").end()),
        (
            "extension header of",
            Archive::new().entry(Header::new("p", b'x', many as u64), &vec![b'1'; many]).file("f", b"").end(),
        ),
        ("length key=value", Archive::new().entry(Header::new("p", b'x', 9), b"99 path=a").file("f", b"").end()),
        ("NUL", Archive::new().pax(&[("path", b"a\0b")]).file("f", b"").end()),
        ("two PAX headers", Archive::new().pax(&[("uid", b"1")]).pax(&[("uid", b"2")]).file("f", b"").end()),
        ("different path", Archive::new().pax(&[("path", b"a")]).long(b'L', b"b").file("f", b"").end()),
        ("cannot be global", Archive::new().extended(b'g', &[("path", b"a")]).file("f", b"").end()),
        ("uid is not", Archive::new().pax(&[("uid", b"4294967296")]).file("f", b"").end()),
        ("uid is not", Archive::new().pax(&[("uid", b"-1")]).file("f", b"").end()),
        ("limit is 4096", Archive::new().long(b'L', &b"abcdefgh/".repeat(500)).file("f", b"").end()),
        ("limit is 255", Archive::new().long(b'L', &[b'n'; 256]).file("f", b"").end()),
        ("symbolic link target", Archive::new().symlink("s", "").end()),
        ("symbolic link target", Archive::new().long(b'K', &[b't'; 4096]).symlink("s", "t").end()),
        ("the limits are", Archive::new().pax(&[("SCHILY.xattr.user.a", &[b'v'; 65_536])]).file("f", b"").end()),
        (
            "access control list",
            Archive::new().pax(&[("SCHILY.xattr.system.posix_acl_access", b"x")]).file("f", b"").end(),
        ),
        ("device major", Archive::new().entry(Header::new("c", b'3', 0).with(329, b"0010000\0"), b"").end()),
        ("can only be a directory", Archive::new().file("./", b"").symlink("/", "x").end()),
        ("whose type has none", Archive::new().entry(Header::new("d", b'5', 512), &[0; 512]).end()),
        (
            "whose type has none",
            Archive::new().pax(&[("size", b"512")]).entry(Header::new("d", b'1', 0), &[0; 512]).end(),
        ),
        ("entry type", Archive::new().entry(Header::new("m", b'M', 0), b"").end()),
        ("size is not", Archive::new().entry(Header::new("f", b'0', 0).with(124, &[255; 12]), b"").end()),
        ("16 TiB", Archive::new().pax(&[("size", b"99999999999999999")]).file("f", b"").end()),
        ("sparse regions", sparse(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"0,5,4,5")], &[1; 10])),
        ("sparse region", sparse(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"5,6")], &[1; 6])),
        (
            "sparse region",
            sparse(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"18446744073709551615,6")], &[1; 6]),
        ),
        ("more or fewer", sparse(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"5,3")], &[1; 6])),
        ("odd number", sparse(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"5,3,1")], &[1; 3])),
        ("incomplete", sparse(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")], &[1; 3])),
        ("16 TiB", sparse(&[("GNU.sparse.size", b"99999999999999999"), ("GNU.sparse.map", b"")], b"")),
        (
            "something else than numbers",
            sparse(
                &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")],
                &[b'x'; 512],
            ),
        ),
    ];
    for (nth, (reason, tar)) in cases.iter().enumerate() {
        for piece in [1 << 20, 7] {
            let error = write_in(&store, tar, piece, None).expect_err(&format!("case {nth}: {reason}"));
            assert!(matches!(error, LayerError::Tar { .. }), "case {nth}: {error}");
            assert!(error.to_string().contains(reason), "case {nth}: {error} should say {reason:?}");
        }
    }
    assert_eq!(sh(&scene.path("state/layers"), "ls -A"), ".empty\n");
}

/// Writes, mounts and shows paths with sizes or targets.
fn shown(scene: &Scene, tar: &[u8]) -> String {
    let store = scene.store();
    let layer = write(&store, tar).unwrap().digest;
    store.verify(&layer).unwrap();
    let place = store.ensure_mounted(&layer).unwrap();
    sh(&place, r"find . -mindepth 1 -printf '%P %y%s %l %n\n' | sed 's/ d[0-9]*  /  d /' | LC_ALL=C sort")
}

#[test]
fn read_within_the_layer() {
    let scene = Scene::new();
    let out = "target";
    for (what, tar, expect) in [
        ("absolute", Archive::new().file("/abs", b"1").file("//a//./b", b"22"), "a  d 2\na/b f2  1\nabs f1  1\n"),
        (
            "write through a link stays inside",
            Archive::new().symlink("l", "/../../etc").file("l/passwd", b"1"),
            "etc  d 2\netc/passwd f1  1\nl l10 /../../etc 1\n",
        ),
        (
            "relative link",
            Archive::new().dir("a/b").symlink("a/b/up", "../../x").file("a/b/up/f", b"1"),
            "a  d 3\na/b  d 2\na/b/up l7 ../../x 1\nx  d 2\nx/f f1  1\n",
        ),
        ("last link is replaced", Archive::new().symlink("l", "/etc/passwd").file("l", b"123"), "l f3  1\n"),
        ("directory over link", Archive::new().symlink("l", out).dir("l/").file("l/f", b"1"), "l  d 2\nl/f f1  1\n"),
        ("later wins", Archive::new().file("f", b"1").file("f", b"22").file("./f", b"333"), "f f3  1\n"),
        (
            "old inode lives on under its other name",
            Archive::new().file("f", b"1").link("g", "f").file("f", b"22").link("h", "g"),
            "f f2  1\ng f1  2\nh f1  2\n",
        ),
        (
            "file over directory",
            Archive::new().file("d/x/y", b"1").link("k", "d/x/y").file("d", b"2"),
            "d f1  1\nk f1  1\n",
        ),
        ("link to itself", Archive::new().file("f", b"1").link("f", "./f"), "f f1  1\n"),
        (
            "link through a link",
            Archive::new().file("d/f", b"1").symlink("s", "d").link("g", "s/f"),
            "d  d 2\nd/f f1  2\ng f1  2\ns l1 d 1\n",
        ),
        ("removed and made", Archive::new().file("x", b"1").file(".wh.x", b""), "x f1  1\n"),
        ("whiteout device", Archive::new().entry(Header::new("w", b'3', 0), b"").link("v", "w"), "v c0  2\nw c0  2\n"),
        (
            "AUFS bookkeeping",
            Archive::new().file(".wh..wh.plnk/1.2", b"1").dir(".wh..wh.orph").file("f", b""),
            "f f0  1\n",
        ),
        ("old directory", Archive::new().file("old/", b"").file("f", b""), "f f0  1\nold  d 2\n"),
        ("no end", Archive::new().file("f", b"1"), "f f1  1\n"),
    ] {
        let tar = if what == "no end" { tar.0 } else { tar.end() };
        assert_eq!(shown(&scene, &tar), expect, "{what}");
    }
}

#[test]
fn nothing_after_the_end_is_an_entry_but_all_is_hashed() {
    let scene = Scene::new();
    let mut tar = Archive::new().file("f", b"1").end();
    tar.extend(Archive::new().file("ghost", b"2").end());
    tar.extend(b"odd tail");
    assert_eq!(shown(&scene, &tar), "f f1  1\n");
    let store = scene.store();
    let mut back = Vec::new();
    std::io::Read::read_to_end(&mut store.open_tar(&Digest::of(&tar)).unwrap(), &mut back).unwrap();
    assert_eq!(back, tar);
}

#[test]
fn foreign_padding_is_not_visible_by_mmap() {
    let scene = Scene::new();
    let store = scene.store();
    let tar = Archive::new().entry(Header::new("f", b'0', 5), &[b"12345".as_slice(), &[b'!'; 507]].concat()).end();
    let layer = write(&store, &tar).unwrap().digest;
    store.verify(&layer).unwrap();
    let place = store.ensure_mounted(&layer).unwrap();
    let script = "import ctypes, os
libc = ctypes.CDLL(None, use_errno=True); libc.mmap.restype = ctypes.c_void_p
fd = os.open('f', os.O_RDONLY); p = libc.mmap(None, 4096, 1, 2, fd, 0); print(ctypes.string_at(p, 4096).rstrip(b'\\0'))";
    let path = scene.path("see.py");
    std::fs::write(&path, script).unwrap();
    assert_eq!(sh(&place, &format!("python3 {}", path.display())), "b'12345'\n");
}

#[test]
fn overlay_attributes_of_the_tar_do_not_reach_overlayfs() {
    let scene = Scene::new();
    let store = scene.store();
    let tar = Archive::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.metacopy", b""),
            ("SCHILY.xattr.user.k", b"v"),
        ])
        .dir("d/")
        .end();
    let layer = write(&store, &tar).unwrap().digest;
    let place = store.ensure_mounted(&layer).unwrap();
    let seen: Vec<_> = inventory::xattrs(&place.join("d")).into_keys().collect();
    assert_eq!(seen, ["user.k"]);
}

#[test]
fn same_tar_gives_the_same_file_and_damage_is_found() {
    let scene = Scene::new();
    let store = scene.store();
    let mut archive = Archive::new();
    for nth in 0..300 {
        archive = archive.file(&format!("dir-{}/file-{nth}", nth % 7), &vec![nth as u8; nth * 13]);
    }
    let tar = archive.file(".wh.gone", b"").symlink("s", "t").link("l", "dir-1/file-1").end();
    let digest = Digest::of(&tar);
    let mut seen = Vec::new();
    for piece in [1, 511, 513, 4096, 3 << 20] {
        let published = write_in(&store, &tar, piece, Some(&digest)).unwrap();
        assert!(!published.existed);
        seen.push(std::fs::read(store.path(&digest)).unwrap());
        assert!(write_in(&store, &tar, piece, Some(&digest)).unwrap().existed);
        store.remove(&digest).unwrap();
    }
    assert!(seen.iter().all(|file| *file == seen[0]));

    let sha512: Digest = format!("sha512:{}", sh(&scene.path(""), "true") + &sha512_hex(&tar)).parse().unwrap();
    let mut writer = store.writer(Algorithm::Sha256).unwrap();
    writer.push(&tar).unwrap();
    assert_eq!(writer.finish(Some(&sha512)).unwrap().digest, sha512);
    store.verify(&sha512).unwrap();

    let good = &seen[0];
    let tar_end = 4096 + tar.len();
    for (at, in_tar) in [
        (5000, true),
        (tar_end - 2000, true),
        (1024 + 40, false),
        (tar_end.next_multiple_of(4096) + 5, false),
        (good.len() - 700, false),
    ] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(store.path(&digest), &bad).unwrap();
        let error = store.verify(&digest).unwrap_err();
        let fits = if in_tar {
            matches!(error, LayerError::DigestMismatch { .. })
        } else {
            matches!(error, LayerError::Damaged { .. })
        };
        assert!(fits, "byte {at}: {error}");
    }
    // A file that was cut counts as absent and is replaced.
    std::fs::write(store.path(&digest), &good[..good.len() - 512]).unwrap();
    assert_eq!(store.contains(&digest).unwrap(), None);
    assert!(!write_in(&store, &tar, 1000, Some(&digest)).unwrap().existed);
    assert_eq!(store.contains(&digest).unwrap(), Some(good.len() as u64));
    assert_eq!(store.list().unwrap().len(), 2);
}

fn sha512_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha512::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn wrong_digest_publishes_nothing() {
    let scene = Scene::new();
    let store = scene.store();
    let tar = Archive::new().file("f", b"1").end();
    let error = write_in(&store, &tar, 512, Some(&Digest::of(b"other"))).unwrap_err();
    assert!(matches!(error, LayerError::DigestMismatch { .. }), "{error}");
    assert_eq!(sh(&scene.path("state/layers"), "ls -A"), ".empty\n");
}

#[test]
fn hundred_thousand_entries_in_one_directory() {
    let scene = Scene::new();
    let store = scene.store();
    let mut writer = store.writer(Algorithm::Sha256).unwrap();
    for nth in 0..100_000 {
        writer.push(&Archive::new().file(&format!("d/entry-{nth}"), b"").0).unwrap();
    }
    writer.push(&[0; 1024]).unwrap();
    let published = writer.finish(None).unwrap();
    assert_eq!(published.entries, 100_000);
    let place = store.ensure_mounted(&published.digest).unwrap().join("d");
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 100_000);
    assert!((0..100_000).all(|nth| place.join(format!("entry-{nth}")).symlink_metadata().is_ok()));
    assert!((0..1000).all(|nth| place.join(format!("entry-x{nth}")).symlink_metadata().is_err()));
}

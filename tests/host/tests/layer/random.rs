//! Random archives: against umoci where both accept them, and mutated ones against the kernel's patience.

use std::path::Path;
use std::process::Command;

use strata_layer::{LayerError, LayerStore};
use strata_model::Digest;

use super::archive::{Archive, Header};
use super::inventory::{self, Leave, assert_same};
use super::scene::{Scene, sh, write_in};

/// Rounds of each test; more with `STRATA_TEST_ROUNDS`.
const ROUNDS: u64 = 40;

fn rounds() -> std::ops::Range<u64> {
    let wanted = std::env::var("STRATA_TEST_ROUNDS").ok().and_then(|text| text.parse().ok());
    0..wanted.unwrap_or(ROUNDS)
}

/// xorshift64*: enough to choose with, the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

const NAMES: [&str; 10] = ["a", "b", "a/b", "a/c", "b/c/d", "a/b/c", "./a/", "/b/c", "c", "c/a"];
const TARGETS: [&str; 8] = ["a", "b", "../b", "/c", "/a/../b", "c/./a", "..", "missing"];

/// A few entries whose names get in each other's way.
fn archive(random: &mut Random) -> Archive {
    let mut archive = Archive::new();
    for nth in 0..3 + random.below(8) {
        let name = random.of(&NAMES);
        archive = match random.below(6) {
            0 | 1 => archive.file(name.trim_end_matches('/'), format!("content {nth}").as_bytes()),
            2 => archive.dir(name),
            3 => archive.symlink(name.trim_end_matches('/'), random.of(&TARGETS)),
            4 => archive.link(name.trim_end_matches('/'), random.of(&NAMES)),
            _ => {
                // With its parents: what a whiteout below a missing directory means depends on the layers below.
                let name = name.trim_matches(['.', '/']);
                let (parent, base) = name.rsplit_once('/').unwrap_or((".", name));
                for (end, _) in parent.match_indices('/').chain([(parent.len(), "")]) {
                    archive = archive.dir(&parent[..end]);
                }
                archive.file(&format!("{parent}/.wh.{base}"), b"")
            }
        };
    }
    archive
}

#[test]
fn random_layers_are_what_umoci_makes_of_them() {
    let scene = Scene::new();
    let store = scene.store();
    let base = Archive::new()
        .dir("a/")
        .dir("a/b/")
        .file("a/b/c", b"base")
        .file("b", b"base")
        .dir("c/")
        .file("c/a", b"base")
        .end();
    let base_layer = write_in(&store, &base, 4096, None).unwrap().digest;
    let oci = scene.make("oci");
    std::fs::write(oci.join("base.tar"), &base).unwrap();
    sh(
        &oci,
        "umoci init --layout image; umoci new --image image:base; umoci raw add-layer --image image:base base.tar",
    );
    let mut compared = 0;
    for seed in rounds() {
        let tar = archive(&mut Random(0x9E37_79B9_7F4A_7C15 ^ (seed << 7 | 1))).end();
        let Ok(published) = write_in(&store, &tar, 1000, Some(&Digest::of(&tar))) else { continue };
        std::fs::write(oci.join("t.tar"), &tar).unwrap();
        let script = "rm -rf bundle; umoci raw add-layer --image image:base --tag t t.tar && umoci unpack --image image:t bundle";
        let unpacked = Command::new("bash").args(["-ec", script]).current_dir(&oci).output().unwrap();
        if !unpacked.status.success() {
            continue;
        }
        let root = store.mount_read_only(&[base_layer.clone(), published.digest.clone()], None).unwrap();
        let root = scene.attach(&root, &format!("root-{seed}"));
        let leave = Leave { directory_times: true, links: true, root: true };
        println!("seed {seed}\n{}", sh(&oci, "tar -tvf t.tar"));
        assert_same(&inventory::take(&root, leave), &inventory::take(&oci.join("bundle/rootfs"), leave));
        nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH).unwrap();
        store.remove(&published.digest).unwrap();
        compared += 1;
    }
    assert!(compared > 0);
}

/// Reads everything below a directory; an error means that the kernel found the metadata corrupt.
fn read_all(path: &Path) {
    let about = path.symlink_metadata().unwrap();
    if about.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            read_all(&entry.unwrap().path());
        }
    } else if about.is_symlink() {
        std::fs::read_link(path).unwrap();
    } else if about.is_file() && about.len() < 1 << 24 {
        std::fs::read(path).unwrap();
    }
    inventory::xattrs(path);
}

fn check_accepted(store: &LayerStore, tar: &[u8]) -> bool {
    match write_in(store, tar, 777, None) {
        Ok(published) => {
            store.verify(&published.digest).unwrap();
            read_all(&store.ensure_mounted(&published.digest).unwrap());
            store.remove(&published.digest).unwrap();
            true
        }
        Err(LayerError::Tar { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn mutated_archives_are_refused_or_readable() {
    let scene = Scene::new();
    let store = scene.store();
    let (mut accepted, mut refused) = (0, 0);
    for seed in rounds() {
        let random = &mut Random(0xD1B5_4A32_D192_ED03 ^ (seed << 9 | 1));
        for _ in 0..25 {
            let mut tar = archive(random)
                .pax(&[
                    ("SCHILY.xattr.user.a", b"some value"),
                    ("mtime", b"12345.678"),
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.realsize", b"9000"),
                ])
                .file("sparse", &[&b"2\n512\n512\n8190\n810\n"[..], &[0; 493], &[7; 512], &[9; 810]].concat())
                .entry(
                    Header::new("old", b'S', 600)
                        .with(386, b"00000001000\x0000000001000\0")
                        .with(410, b"00000010000\x0000000000130\0")
                        .with(483, b"00000020000\0"),
                    &[5; 600],
                )
                .end();
            for _ in 0..1 + random.below(4) {
                let at = random.below(tar.len());
                tar[at] = random.of(&[0, b'0', b'7', b'9', b'/', b'.', 0x80, 0xff, b'\n', random.0 as u8]);
                // Most changed headers get a right checksum again, else all would end there.
                let block = at / 512 * 512;
                if random.below(4) > 0 && tar.get(block + 257..block + 262) == Some(b"ustar") {
                    let mut header = Header([0; 512]);
                    header.0.copy_from_slice(&tar[block..block + 512]);
                    tar[block..block + 512].copy_from_slice(&header.sealed());
                }
            }
            if check_accepted(&store, &tar) { accepted += 1 } else { refused += 1 }
        }
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(accepted > 0 && refused > 0);
}

//! Images on the real kernel: registries (Debian's and hostile ones), archives, peers. Needs root, docker-registry, umoci, skopeo
//! and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "image/fixture.rs"]
mod fixture;
#[path = "image/full_disk.rs"]
mod full_disk;
#[path = "image/hostile.rs"]
mod hostile;
#[allow(dead_code)] // trouble.rs uses the rest
#[path = "image/http.rs"]
mod http;
#[path = "image/import.rs"]
mod import;
#[path = "image/peers.rs"]
mod peers;
#[path = "image/pull.rs"]
mod pull;
#[path = "image/registry.rs"]
mod registry;

//! Layers on the real kernel: layer files against GNU tar and umoci, mounts, container roots. Needs root.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "layer/archive.rs"]
mod archive;
#[path = "layer/broken_off.rs"]
mod broken_off;
#[path = "layer/hostile.rs"]
mod hostile;
#[path = "layer/inventory.rs"]
mod inventory;
#[path = "layer/random.rs"]
mod random;
#[path = "layer/roots.rs"]
mod roots;
#[path = "layer/same_as_tar.rs"]
mod same_as_tar;
#[path = "layer/scene.rs"]
mod scene;
#[path = "layer/seal.rs"]
mod seal;

//! A node that can build, without controller and containers.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use futures::future::BoxFuture;
use rustix::mount::{MoveMountFlags, move_mount};
use strata_build::{BuildError, BuildRequest, Builder, Built, Ended, Event, Events, RunStep, World};
use strata_image::{ImageStore, StoredImage};
use strata_layer::LayerStore;
use strata_model::ImageName;
use tokio::sync::mpsc;

/// Without images; a RUN writes what its command line says, by the host's shell, into the upper directory.
struct Alone;

impl World for Alone {
    fn image<'a>(&'a self, name: &'a ImageName, _fresh: bool) -> BoxFuture<'a, Result<Arc<StoredImage>, String>> {
        Box::pin(async move { Err(format!("{name} is nowhere")) })
    }

    fn run<'a>(&'a self, step: RunStep, events: &'a Events) -> BoxFuture<'a, Result<Ended, String>> {
        Box::pin(async move {
            events.tell(Event::Output(b"ran\n".to_vec())).await;
            let upper = step.writable.join("u");
            let status = Command::new("sh").arg("-ec").arg(&step.args[2]).current_dir(upper).status().unwrap();
            Ok(Ended::Exit(status.code().unwrap_or(137)))
        })
    }
}

pub struct Lab {
    pub dir: tempfile::TempDir,
    pub images: ImageStore,
    pub builder: Builder,
    runtime: tokio::runtime::Runtime,
}

/// What a build said and gave.
pub struct Outcome {
    pub built: Result<Built, BuildError>,
    pub events: Vec<Event>,
}

impl Lab {
    /// Mounts of the test are its thread's own, so everything blocking happens on threads that are made after it left the others' namespace.
    pub fn new() -> Self {
        private();
        Self::beside()
    }

    /// Another one, in the namespace that the thread has already.
    pub fn beside() -> Self {
        Self::below(tempfile::Builder::new().prefix("strata-build-").tempdir().unwrap())
    }

    pub fn below(dir: tempfile::TempDir) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let state = dir.path().join("state");
        let images = ImageStore::open(&state, LayerStore::open(&state).unwrap()).unwrap();
        let builder = Builder::open(&state, images.clone(), Arc::new(Alone)).unwrap();
        Self { dir, images, builder, runtime }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes the context by a script, in a new directory.
    pub fn context(&self, script: &str) -> PathBuf {
        let path = tempfile::Builder::new().prefix("context-").tempdir_in(self.dir.path()).unwrap().keep();
        sh(&path, script);
        path
    }

    /// The tar of a context, as any client may make it.
    pub fn tar(&self, context: &Path) -> Vec<u8> {
        let output = Command::new("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=pax", "-c", "."])
            .current_dir(context)
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    }

    pub fn build(&self, context: &Path, dockerfile: &str) -> Outcome {
        let request = BuildRequest { dockerfile_text: Some(dockerfile.to_owned()), ..BuildRequest::default() };
        self.build_tar(&self.tar(context), &request)
    }

    pub fn build_tar(&self, tar: &[u8], request: &BuildRequest) -> Outcome {
        let mut writer = self.builder.context().unwrap();
        let taken = writer.push(tar).map_err(BuildError::from).and_then(|()| Ok(writer.finish(None)?.digest));
        let digest = match taken {
            Ok(digest) => digest,
            Err(error) => return Outcome { built: Err(error), events: Vec::new() },
        };
        let (sender, mut receiver) = mpsc::channel(1000);
        let built = self.runtime.block_on(self.builder.build(&digest, request, &Events::new(sender)));
        self.builder.forget(&digest);
        let mut events = Vec::new();
        while let Ok(event) = receiver.try_recv() {
            events.push(event);
        }
        Outcome { built, events }
    }

    /// Builds, and mounts the image's files.
    pub fn built(&self, context: &Path, dockerfile: &str) -> PathBuf {
        let outcome = self.build(context, dockerfile);
        let built = outcome.built.unwrap_or_else(|error| panic!("{error}\n{dockerfile}"));
        self.mount(&built.image)
    }

    pub fn mount(&self, image: &StoredImage) -> PathBuf {
        let layers: Vec<_> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let root: OwnedFd = self.images.layers().mount_read_only(&layers, None).unwrap();
        let place = tempfile::Builder::new().prefix("root-").tempdir_in(self.dir.path()).unwrap().keep();
        move_mount(root, "", rustix::fs::CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
        place
    }

    /// Nothing of a build is left but layers, images and the cache.
    pub fn assert_clean(&self) {
        for part in ["builds", "builds/layers", "builds/mnt"] {
            let names: Vec<String> = std::fs::read_dir(self.path("state").join(part))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .filter(|name| !matches!(name.as_str(), "layers" | "mnt" | ".empty"))
                .collect();
            assert!(names.is_empty(), "{part}: {names:?}");
        }
        let writing = std::fs::read_dir(self.path("state/layers")).unwrap();
        assert!(!writing.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(".writing")));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let base = self.dir.path().to_string_lossy().into_owned();
        let below: Vec<&str> =
            table.lines().filter_map(|l| l.split(' ').nth(4)).filter(|p| p.starts_with(&base)).collect();
        for place in below.iter().rev() {
            let _detached = nix::mount::umount2(*place, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// Gives the calling thread, and those it starts from now on, a mount namespace of their own.
pub fn private() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
}

/// Runs a shell script that must succeed, in a directory.
pub fn sh(directory: &Path, script: &str) -> String {
    let output = Command::new("bash").args(["-euc", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Every path of a tree with mode, owner and what it is, sorted.
pub fn listing(root: &Path) -> String {
    sh(root, "find . -mindepth 1 -printf '%P %m %U:%G %y%l\\n' | LC_ALL=C sort")
}

//! RUN: a command in a container on the layers so far, whose writable layer becomes the next.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat, unlinkat};
use rustix::io::Errno;
use strata_layer::{SealOptions, prepare_writable};

use super::{Build, PROXIES, Stage, remove_writable};
use crate::cache::{CacheEntry, Key};
use crate::dockerfile::{Run, Step};
use crate::error::{BuildError, Result};
use crate::limits::RUN_TIMEOUT;
use crate::world::{Ended, Event, RunStep};

/// What a container's own mounts need: made if the image has none, and no part of the layer. Names in a directory come before it.
const MOUNT_POINTS: [&str; 7] = ["proc", "sys", "dev", "etc/resolv.conf", "etc/hosts", "etc/hostname", "etc"];

/// The directory of a RUN's writable layer, gone when this is dropped.
struct Writable(PathBuf);

impl Drop for Writable {
    fn drop(&mut self) {
        if let Err(error) = remove_writable(&self.0) {
            tracing::warn!("a step's writable layer stays until the next start: {error}");
        }
    }
}

impl Build<'_> {
    pub(super) async fn run(&mut self, stage: &mut Stage, step: &Step, run: &Run) -> Result<()> {
        let args = self.command(stage, &run.command);
        let env = self.run_environment(stage);
        let config = &stage.config.config;
        let working_dir = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
        let lines: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let epoch = self.epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
        let network = if run.network { "network" } else { "none" };
        let about = [config.user.as_str(), working_dir, network, epoch.as_str()];
        let count = args.len().to_string();
        let parts = about.into_iter().chain([count.as_str()]).chain(args.iter().chain(&lines).map(String::as_str));
        let key = Key::new("run", &stage.layers, parts);
        let layers = self.builder.images.layers().clone();
        if let Some(entry) = self.builder.cache.get(&key).filter(|_| !self.request.no_cache) {
            // Held first: what is here then stays.
            self.lease.hold(&entry.layer);
            if layers.contains(&entry.layer)?.is_some() {
                self.events.tell(Event::Cached).await;
                self.add_layer(stage, step, &entry);
                return Ok(());
            }
        }
        let writable = Writable(self.builder.run_directory());
        prepare_writable(&writable.0, layers.root_attributes(&stage.layers)?)?;
        let base = self.tree(&stage.layers)?;
        let mut missing = Vec::new();
        for name in MOUNT_POINTS {
            if base.resolve(name.as_bytes(), true).is_ok_and(|place| place.stat.is_none()) {
                missing.push(name);
            }
        }
        drop(base);
        let mut environment = env;
        environment.extend(self.proxies(&environment));
        let run_step = RunStep {
            layers: stage.layers.clone(),
            writable: writable.0.clone(),
            args,
            env: environment,
            user: config.user.clone(),
            working_dir: working_dir.to_owned(),
            network: run.network,
            timeout: RUN_TIMEOUT,
        };
        match self.builder.world.run(run_step, self.events).await.map_err(BuildError::Run)? {
            Ended::Exit(0) => {}
            Ended::Exit(code) => return Err(BuildError::Exit { code }),
            Ended::TooLong => return Err(BuildError::TooLong { seconds: RUN_TIMEOUT.as_secs() }),
            Ended::Cancelled => return Err(BuildError::Cancelled),
        }
        let options = SealOptions { newest_mtime: self.epoch };
        let sealed = tokio::task::spawn_blocking(move || {
            remove_mount_points(&writable.0, &missing)?;
            Ok::<_, BuildError>(layers.seal(&writable.0, options)?)
        });
        let published = sealed.await.map_err(|_| BuildError::Cancelled)??;
        self.lease.hold(&published.digest);
        let entry = CacheEntry { layer: published.digest, created: self.epoch.unwrap_or(stage.created) };
        self.builder.cache.put(&key, &entry);
        self.add_layer(stage, step, &entry);
        Ok(())
    }

    /// What a command sees: build arguments, overridden by the image's environment.
    fn run_environment(&self, stage: &Stage) -> Vec<(String, String)> {
        let mut env: Vec<(String, String)> = Vec::new();
        for (name, value) in self.variables(stage) {
            match env.iter_mut().find(|(own, _)| *own == name) {
                Some((_, own)) => *own = value,
                None => env.push((name, value)),
            }
        }
        env
    }

    /// The build's proxies where nothing else sets them.
    fn proxies(&self, env: &[(String, String)]) -> Vec<(String, String)> {
        let is_set = |name: &str| env.iter().any(|(own, _)| own == name);
        let proxies = self.request.args.iter().filter(|(name, _)| PROXIES.contains(&name.to_uppercase().as_str()));
        proxies.filter(|(name, _)| !is_set(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// Removes what was made for mounts only: directories with nothing in them, empty files.
///
/// CVE class: the command may have put links in their places. None is followed.
fn remove_mount_points(writable: &Path, names: &[&str]) -> Result<()> {
    let upper = writable.join("u");
    let fail = |error: Errno| BuildError::io("removing mount points in", &upper, error);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = openat(CWD, &upper, flags, Mode::empty()).map_err(fail)?;
    for name in names {
        let (above, name) = name.rsplit_once('/').unwrap_or((".", name));
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let directory = match openat2(&root, above, flags, Mode::empty(), resolve) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(fail(error)),
        };
        let Ok(about) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let how = match FileType::from_raw_mode(about.st_mode) {
            FileType::Directory => AtFlags::REMOVEDIR,
            FileType::RegularFile if about.st_size == 0 => AtFlags::empty(),
            _ => continue,
        };
        match unlinkat(&directory, name, how) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            Err(error) => return Err(fail(error)),
        }
    }
    Ok(())
}

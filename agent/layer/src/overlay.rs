//! Container roots: overlays of id-mapped clones of the layer mounts, over a writable directory.

mod by_path;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};
use rustix::thread::{CapabilitySets, capabilities, set_capabilities};

use crate::error::{LayerError, Result};
use crate::limits::MAX_LAYERS;
use crate::mount::refused;

/// What an overlay is made of.
pub(crate) struct Overlay<'a> {
    /// Mounted layers, the highest first; at least one, two if nothing is writable, of which the last is empty.
    pub lowers: &'a [PathBuf],
    /// The directory that holds `u` and `w`; without it the root is read-only.
    pub writable: Option<&'a Path>,
    /// Whose ids the files shall have.
    pub userns: Option<BorrowedFd<'a>>,
    /// Whether nothing is ever synced.
    pub volatile: bool,
    /// Whether this kernel wants layers as paths; set here once it turns out so.
    pub by_path: &'a AtomicBool,
}

/// The writable side, ready for use.
struct Upper {
    /// Their mount. A detached mount falls apart with its descriptor, and overlayfs then refuses what was opened below it.
    tree: OwnedFd,
    upper: OwnedFd,
    work: OwnedFd,
    /// The host's ids for the container's root.
    owner: (u32, u32),
}

/// Makes the overlay, attached nowhere.
pub(crate) fn mount(overlay: &Overlay<'_>) -> Result<OwnedFd> {
    let lowers = clone_lowers(overlay)?;
    let upper = overlay.writable.map(|writable| open_upper(writable, overlay.userns)).transpose()?;
    create_apart(&lowers, upper.as_ref(), overlay)
}

/// A clone of a mount, with its files owned by the user namespace's ids.
pub(crate) fn clone(path: &Path, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let tree = open_tree(CWD, path, flags).map_err(|error| refused("cloning the mount", path, error, None))?;
    if let Some(userns) = userns {
        strata_sys::mount::set_idmap(tree.as_fd(), userns).map_err(|source| LayerError::Mount {
            doing: "id-mapping",
            path: path.to_owned(),
            kernel: String::new(),
            source,
        })?;
    }
    Ok(tree)
}

fn clone_lowers(overlay: &Overlay<'_>) -> Result<Vec<OwnedFd>> {
    let mut lowers = Vec::with_capacity(overlay.lowers.len());
    for path in overlay.lowers {
        lowers.push(clone(path, overlay.userns)?);
        // overlayfs does not look at the roots of layers: an opaque one ends the stack here.
        if is_opaque(path)? {
            if let (None, Some(empty)) = (overlay.writable, overlay.lowers.last()) {
                lowers.push(clone(empty, overlay.userns)?);
            }
            break;
        }
    }
    let (count, max) = (lowers.len(), MAX_LAYERS);
    if count > max { Err(LayerError::TooManyLayers { count, max }) } else { Ok(lowers) }
}

fn is_opaque(root: &Path) -> Result<bool> {
    let mut value = [0; 1];
    match rustix::fs::lgetxattr(root, "trusted.overlay.opaque", &mut value) {
        Ok(1) => Ok(value == *b"y"),
        Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(LayerError::io("reading attributes of", root, error)),
    }
}

fn open_upper(writable: &Path, userns: Option<BorrowedFd<'_>>) -> Result<Upper> {
    let tree = clone(writable, userns)?;
    let fail = |error: Errno| LayerError::io("opening the writable layer in", writable, error);
    // Seen through the id-mapped mount, the directory (root's on disk) belongs to what the namespace maps root to.
    let about = statx(&tree, "", AtFlags::EMPTY_PATH, StatxFlags::UID | StatxFlags::GID).map_err(fail)?;
    let owner = (about.stx_uid, about.stx_gid);
    if userns.is_some() && (owner.0 == overflow_id("uid") || owner.1 == overflow_id("gid")) {
        return Err(LayerError::RootUnmapped { path: writable.to_owned() });
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |name| openat(&tree, name, flags, Mode::empty()).map_err(fail);
    let (upper, work) = (open("u")?, open("w")?);
    Ok(Upper { upper, work, owner, tree })
}

/// The id that unmapped owners are shown as (proc(5), `overflowuid`).
fn overflow_id(kind: &str) -> u32 {
    let path = format!("/proc/sys/kernel/overflow{kind}");
    std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(65_534)
}

/// Whatever the kernel's defaults: an upper directory must say by itself what changed, so that it can be committed, and no layer may
/// point elsewhere.
const OPTIONS: [(&str, &str); 3] = [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

/// Creates the overlay on a thread of its own: overlayfs keeps the credentials of who creates it and works with them ever after. They
/// must be the container's root (else the work directory cannot be written and the mount silently turns read-only), and they
/// belong to one thread, which then ends; nothing has to be put back.
fn create_apart(lowers: &[OwnedFd], upper: Option<&Upper>, overlay: &Overlay<'_>) -> Result<OwnedFd> {
    let name = overlay.writable.or(overlay.lowers.first().map(PathBuf::as_path)).unwrap_or(Path::new(""));
    let apart = |create: &(dyn Fn() -> Result<OwnedFd> + Sync)| {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("overlay".into())
                .spawn_scoped(scope, create)
                .map_err(|error| LayerError::io("starting a thread to mount", name, error))?;
            thread.join().unwrap_or_else(|_| Err(LayerError::io("mounting the overlay of", name, Errno::IO)))
        })
    };
    if overlay.by_path.load(Ordering::Relaxed) {
        return apart(&|| by_path::create(lowers, upper, overlay, name));
    }
    match apart(&|| create(lowers, upper, overlay, name)) {
        // EBADF: layers as descriptors need Linux 6.13; EINVAL: detached ones 6.15.
        Err(LayerError::Mount { source, doing, path, kernel })
            if matches!(Errno::from_io_error(&source), Some(Errno::BADF | Errno::INVAL)) =>
        {
            let mount = apart(&|| by_path::create(lowers, upper, overlay, name)).map_err(|_| LayerError::Mount {
                source,
                doing,
                path,
                kernel,
            })?;
            overlay.by_path.store(true, Ordering::Relaxed);
            tracing::info!("this kernel takes overlay layers only as paths");
            Ok(mount)
        }
        result => result,
    }
}

fn create(lowers: &[OwnedFd], upper: Option<&Upper>, overlay: &Overlay<'_>, name: &Path) -> Result<OwnedFd> {
    const DOING: &str = "mounting the overlay of";
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| refused(DOING, name, error, None))?;
    let fail = |error| refused(DOING, name, error, Some(context.as_fd()));
    fsconfig_set_string(&context, "source", "strata").map_err(fail)?;
    for (option, value) in OPTIONS {
        fsconfig_set_string(&context, option, value).map_err(fail)?;
    }
    for lower in lowers {
        fsconfig_set_fd(&context, "lowerdir+", lower).map_err(fail)?;
    }
    let mut attributes = MountAttrFlags::empty();
    if let Some(upper) = upper {
        fsconfig_set_fd(&context, "upperdir", &upper.upper).map_err(fail)?;
        fsconfig_set_fd(&context, "workdir", &upper.work).map_err(fail)?;
        if overlay.volatile {
            fsconfig_set_flag(&context, "volatile").map_err(fail)?;
        }
        if overlay.userns.is_some() {
            become_owner(upper.owner).map_err(|error| LayerError::io("taking the identity for", name, error))?;
        }
    } else {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    if overlay.userns.is_some() {
        // The overlay belongs to the host's user namespace, so device files of an image would work inside: they must not.
        attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    fsconfig_create(&context).map_err(fail)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(fail)
}

/// Takes on the container root's file-system ids and raises again the capabilities that this drops.
fn become_owner((uid, gid): (u32, u32)) -> std::io::Result<()> {
    let sets = capabilities(None)?;
    strata_sys::mount::set_thread_fs_ids(uid, gid)?;
    set_capabilities(None, CapabilitySets { effective: sets.permitted, ..sets })?;
    Ok(())
}

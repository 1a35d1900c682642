//! Packing a directory as the context of a build: a tar, without what its `.dockerignore` leaves out.
//!
//! The same files give the same bytes: sorted, owned by root, times in whole seconds. Links are packed, not followed.

use std::{
    fs::{self, Metadata},
    io::{self, Read as _, Write},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};
use strata_client::ContextPiece;
use strata_model::{ignore::IgnoreRules, limits::CHUNK_BYTES};
use tokio::sync::mpsc;

/// Files of one context.
const ENTRIES_MAX: usize = 1_000_000;

/// What is packed.
#[derive(Debug)]
pub struct Context {
    root: PathBuf,
    entries: Vec<Entry>,
    /// Bytes of all files.
    pub bytes: u64,
}

#[derive(Debug)]
struct Entry {
    /// From the root.
    path: PathBuf,
    about: Metadata,
}

impl Context {
    /// Looks at a directory; `rules` say what is left out.
    pub fn find(root: &Path, rules: &IgnoreRules) -> io::Result<Self> {
        let mut context = Self { root: root.to_owned(), entries: Vec::new(), bytes: 0 };
        if !fs::metadata(root).map_err(|e| named("reading", root, &e))?.is_dir() {
            return Err(io::Error::other(format!("{} is no directory", root.display())));
        }
        context.directory(Path::new(""), rules)?;
        Ok(context)
    }

    fn directory(&mut self, at: &Path, rules: &IgnoreRules) -> io::Result<()> {
        let here = self.root.join(at);
        let entries = fs::read_dir(&here).map_err(|e| named("reading", &here, &e))?;
        let mut names = entries.map(|e| e.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            let path = at.join(&name);
            let full = self.root.join(&path);
            let ignored = !rules.is_empty() && rules.ignores(&path.to_string_lossy());
            let about = fs::symlink_metadata(&full).map_err(|e| named("inspecting", &full, &e))?;
            if about.is_dir() {
                if ignored && !rules.has_exceptions() {
                    continue;
                }
                let place = self.entries.len();
                self.directory(&path, rules)?;
                // An ignored directory is there for what is excepted in it.
                if !ignored || self.entries.len() > place {
                    self.entries.insert(place, Entry { path, about });
                }
            } else if !ignored && (about.is_file() || about.is_symlink()) {
                if name.as_bytes().starts_with(b".wh.") {
                    let message = "names that begin with .wh. cannot be in an image: leave it out with a .dockerignore";
                    return Err(named("packing", &full, &io::Error::other(message)));
                }
                self.bytes += if about.is_file() { about.len() } else { 0 };
                self.entries.push(Entry { path, about });
            }
            if self.entries.len() > ENTRIES_MAX {
                let message =
                    format!("more than {ENTRIES_MAX} files: leave out what is not needed with a .dockerignore");
                return Err(named("packing", &self.root, &io::Error::other(message)));
            }
        }
        Ok(())
    }

    /// Sends the tar piece by piece; to be called on a thread that may block.
    pub fn send(&self, pieces: &mpsc::Sender<io::Result<ContextPiece>>) {
        let sent = self.write(Pieces { pieces, buffer: Vec::with_capacity(CHUNK_BYTES) });
        let last = sent.and_then(|mut rest| rest.flush()).map(|()| ContextPiece::End);
        // Who does not take it any more has an answer already.
        pieces.blocking_send(last).ok();
    }

    fn write<W: Write>(&self, to: W) -> io::Result<W> {
        let mut tar = tar::Builder::new(to);
        for Entry { path, about } in &self.entries {
            let full = self.root.join(path);
            let fail = |e: io::Error| named("packing", &full, &e);
            let mut header = tar::Header::new_gnu();
            header.set_mode(about.mode() & 0o7777);
            header.set_mtime(u64::try_from(about.mtime()).unwrap_or(0));
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            if about.is_dir() {
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, path.join(""), io::empty()).map_err(fail)?;
            } else if about.is_symlink() {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                let target = fs::read_link(&full).map_err(fail)?;
                tar.append_link(&mut header, path, target).map_err(fail)?;
            } else {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(about.len());
                // Whatever happens to the file meanwhile, its entry has the length that was said.
                let content = fs::File::open(&full).map_err(fail)?.chain(io::repeat(0)).take(about.len());
                tar.append_data(&mut header, path, content).map_err(fail)?;
            }
        }
        tar.into_inner()
    }
}

fn named(doing: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{doing} {}: {error}", path.display()))
}

/// Bytes collected into messages.
struct Pieces<'a> {
    pieces: &'a mpsc::Sender<io::Result<ContextPiece>>,
    buffer: Vec<u8>,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..take]);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the cluster takes no more of it");
        self.pieces.blocking_send(Ok(ContextPiece::Data(piece))).map_err(gone)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn contexts_are_sorted_and_without_what_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        for path in ["b/keep.txt", "b/x.log", "a.txt", "node_modules/m/index.js", "docs/a.md", "docs/b.txt"] {
            fs::create_dir_all(at.join(path).parent().unwrap()).unwrap();
            fs::write(at.join(path), path).unwrap();
        }
        symlink("/etc/passwd", at.join("link")).unwrap();
        let long = format!("{}/{}", "d".repeat(120), "n".repeat(120));
        fs::create_dir_all(at.join("b").join(&long)).unwrap();
        let rules = IgnoreRules::parse("node_modules\n**/*.log\ndocs\n!docs/*.md\n");
        let context = Context::find(at, &rules).unwrap();
        let tar = context.write(Vec::new()).unwrap();
        assert_eq!(tar, Context::find(at, &rules).unwrap().write(Vec::new()).unwrap());
        let mut archive = tar::Archive::new(tar.as_slice());
        let paths: Vec<String> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        let first = long.split('/').next().unwrap();
        let expect =
            ["a.txt", "b/", &format!("b/{first}/"), &format!("b/{long}/"), "b/keep.txt", "docs/", "docs/a.md", "link"];
        assert_eq!(paths, expect);
        fs::write(at.join(".wh.x"), "").unwrap();
        assert!(Context::find(at, &rules).unwrap_err().to_string().contains(".wh."));
    }
}

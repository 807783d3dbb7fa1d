//! Files that a configuration names, and whether they are still what was read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that was read for a configuration, as it was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// Where it is.
    pub path: PathBuf,
    stamp: Option<Stamp>,
}

/// What changes with a file's content, for all that can be told without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl NamedFile {
    /// The file as it is now; what is not there may come.
    #[must_use]
    pub fn look(path: &Path) -> Self {
        let stamp = fs::metadata(path).ok().map(|metadata| Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        });
        Self { path: path.to_owned(), stamp }
    }

    /// The same file, as it is now.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::look(&self.path)
    }
}

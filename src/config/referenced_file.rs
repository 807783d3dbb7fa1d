//! Files that a configuration names, and whether they are still what was read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that was read for a configuration, as it was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferencedFile {
    pub path: PathBuf,
    stamp: Option<FileStamp>,
}

/// What changes with a file's content, for all that can be told without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl ReferencedFile {
    /// The file as it is now; what is not there may come.
    pub fn stat(path: &Path) -> Self {
        let stamp = fs::metadata(path).ok().map(|metadata| FileStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        });
        Self { path: path.to_owned(), stamp }
    }

    /// The same file, as it is now.
    pub fn restat(&self) -> Self {
        Self::stat(&self.path)
    }
}

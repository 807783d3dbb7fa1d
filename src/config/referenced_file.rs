//! Files that a configuration names, with stamps that detect later changes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that was read for a configuration, with its stamp at that time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferencedFile {
    pub path: PathBuf,
    stamp: Option<FileStamp>,
}

/// Metadata that changes when the content changes, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl ReferencedFile {
    /// The file with its present stamp; a missing file has none and may appear later.
    pub fn stat(path: &Path) -> Self {
        let stamp = fs::metadata(path).ok().map(|metadata| FileStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        });
        Self { path: path.to_owned(), stamp }
    }

    /// The same file with its present stamp.
    pub fn restat(&self) -> Self {
        Self::stat(&self.path)
    }
}

//! Small files in the state directory. Each is replaced atomically: after a crash the old or the
//! new contents are there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The suffix of a quarantined file.
pub(super) const BROKEN_SUFFIX: &str = ".broken-";

/// Quarantined files that are kept for an inspection, at most; the oldest are deleted.
pub(super) const MAX_QUARANTINED_FILES: usize = 3;

/// The mode of the files: addresses of endpoints are not readable by other users.
pub(super) const FILE_MODE: u32 = 0o640;

/// The mode of a new state directory.
const DIRECTORY_MODE: u32 = 0o750;

/// Creates the directory if it does not exist.
///
/// # Errors
/// If it cannot be created.
pub(super) fn create_directory(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)
}

/// The contents of the file; `None` if it does not exist.
///
/// # Errors
/// If it cannot be read.
pub fn read_file(directory: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::read(directory.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the contents of the file and returns when they are on disk.
///
/// # Errors
/// If writing failed: the file is unchanged.
pub fn write_file(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    create_directory(directory)?;
    let (path, new) = (directory.join(name), directory.join(format!(".{name}.new")));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, &path)?;
    File::open(directory)?.sync_all()
}

/// Renames an unreadable file, and deletes the oldest of such files.
///
/// # Errors
/// If it cannot be renamed.
pub fn quarantine_file(directory: &Path, name: &str) -> io::Result<PathBuf> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let quarantined = directory.join(format!("{name}{BROKEN_SUFFIX}{}", since_epoch.as_millis()));
    fs::rename(directory.join(name), &quarantined)?;
    let is_quarantined = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&format!("{name}{BROKEN_SUFFIX}"))
    };
    let entries = fs::read_dir(directory)?.flatten().map(|entry| entry.path());
    let mut quarantined_files: Vec<PathBuf> = entries.filter(is_quarantined).collect();
    quarantined_files.sort();
    for old in quarantined_files.iter().rev().skip(MAX_QUARANTINED_FILES) {
        let _ = fs::remove_file(old);
    }
    Ok(quarantined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_file_is_read_back_and_leaves_no_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let inner = directory.path().join("a/b");
        assert_eq!(read_file(&inner, "it").expect("nothing"), None);
        write_file(&inner, "it", b"one").expect("written");
        // A crash during a write leaves this file, which the next write replaces.
        fs::write(inner.join(".it.new"), b"a half").expect("written");
        assert_eq!(read_file(&inner, "it").expect("readable"), Some(b"one".to_vec()));
        write_file(&inner, "it", b"two").expect("written");
        assert_eq!(read_file(&inner, "it").expect("readable"), Some(b"two".to_vec()));
        assert_eq!(fs::read_dir(&inner).expect("readable").count(), 1);
        let quarantined = quarantine_file(&inner, "it").expect("renamed");
        assert_eq!(fs::read(quarantined).expect("kept"), b"two");
        assert_eq!(read_file(&inner, "it").expect("nothing"), None);
    }

    #[test]
    fn write_below_regular_file_fails() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("file"), b"").expect("written");
        assert!(
            write_file(&directory.path().join("file"), "it", b"one").is_err(),
            "not a directory"
        );
    }
}

//! Small files in the state directory, each written as a whole: a crash leaves the old one or the new.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What is added to the name of a file that cannot be read.
pub(super) const BROKEN_SUFFIX: &str = ".broken-";

/// Files that could not be read and are kept for whoever wants to look, at most.
pub(super) const MAX_QUARANTINED_FILES: usize = 3;

/// Who may read the files: addresses of endpoints are nobody else's affair.
pub(super) const FILE_MODE: u32 = 0o640;

/// The same of a directory that had to be made.
const DIRECTORY_MODE: u32 = 0o750;

/// Makes the directory if it is not there.
///
/// # Errors
/// If it cannot be made.
pub(super) fn create_directory(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)
}

/// What the file holds; `None` if there is none.
///
/// # Errors
/// If it cannot be got at.
pub fn read_file(directory: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::read(directory.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has the file hold this. When this returns it is on the disk.
///
/// # Errors
/// If it could not be written: the file is as it was.
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

/// Gives a file that cannot be read another name; the oldest of such files go.
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
        // A crash in the middle of a write leaves this, and the next one takes no notice.
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

//! The path and arguments of this process, with which an upgrade starts its successor.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct Executable {
    /// The path that the process was called by, not the file that runs: a symbolic link may point
    /// to a new version by now, and the old file may be deleted.
    pub path: PathBuf,
    /// Without the program name.
    pub arguments: Vec<OsString>,
}

impl Executable {
    /// The executable of this process. Call it at the start, before the path can be replaced.
    ///
    /// # Errors
    /// If the system does not report the running file or the working directory.
    pub fn of_this_process() -> io::Result<Self> {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let running = env::current_exe()?;
        let directory = env::current_dir()?;
        let search = env::var_os("PATH").unwrap_or_default();
        let path = resolve_program(&name, &directory, &search, &running).unwrap_or(running);
        Ok(Self { path, arguments: arguments.collect() })
    }
}

/// The path behind `name` (argument zero), if it is the running file: a caller can set any name.
fn resolve_program(
    name: &OsStr,
    directory: &Path,
    search: &OsStr,
    running: &Path,
) -> Option<PathBuf> {
    if name.is_empty() {
        return None;
    }
    if Path::new(name).components().count() > 1 {
        let path = directory.join(name);
        return is_same_file(&path, running).then_some(path);
    }
    let places = env::split_paths(search).map(|place| directory.join(place).join(name));
    places.into_iter().find(|path| is_same_file(path, running))
}

fn is_same_file(path: &Path, running: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    identity(path).is_some_and(|file| Some(file) == identity(running))
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::symlink;

    #[test]
    fn executable_is_found_by_name_it_was_started_with() {
        let place = tempfile::TempDir::new().expect("a directory");
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("v1")).expect("made");
        fs::write(at("v1/prog"), "1").expect("written");
        fs::write(at("other"), "2").expect("written");
        symlink("v1", at("current")).expect("linked");
        let running = at("v1/prog");
        let found = |name: &str, search: &str| {
            resolve_program(OsStr::new(name), place.path(), OsStr::new(search), &running)
        };
        assert_eq!(found("current/prog", ""), Some(at("current/prog")), "the link is not resolved");
        assert_eq!(found("./current/prog", ""), Some(at("./current/prog")));
        let absolute = at("current/prog");
        assert_eq!(found(absolute.to_str().expect("text"), ""), Some(absolute.clone()));
        let search = format!("/nowhere:{}", at("current").display());
        assert_eq!(found("prog", &search), Some(absolute));
        assert_eq!(found("prog", "/nowhere"), None);
        assert_eq!(found("./other", ""), None, "not the running file");
        assert_eq!(found("", &search), None);
    }
}

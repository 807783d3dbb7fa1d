//! Sees that the configuration file, or one that it names, has changed, and reads it off the control
//! thread.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::config::{self, LoadError, LoadedConfig, ReferencedFile};

use crate::app::dataplane::listener_config;
use crate::app::dataplane::listener_config::ListenerConfig;

/// A file must have been left alone for this long: editors and config-map swaps write in steps, and
/// a half-written file may be a valid one.
const QUIET_PERIOD: Duration = Duration::from_millis(200);

/// In a directory that is never left alone, the file is looked at after this long all the same.
const MAX_SETTLE_TIME: Duration = Duration::from_secs(2);

/// Watches miss bind mounts, network file systems and symlinks in other directories: look as well.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// What a look at the file gave.
#[derive(Debug)]
pub struct ReloadAttempt {
    /// The configuration, or why there is none.
    pub result: Result<PreparedConfig, LoadError>,
}

/// A configuration that passed every check, and what listeners need of it.
#[derive(Debug)]
pub struct PreparedConfig {
    pub loaded: LoadedConfig,
    /// How connections are taken, listener by listener.
    pub listeners: Vec<ListenerConfig>,
}

/// A configuration file and what runs of it.
#[derive(Debug)]
pub struct WatchedConfigFile {
    pub path: PathBuf,
    /// What it held when it was loaded.
    pub bytes: Vec<u8>,
    /// The files that it names, as they were then.
    pub files: Vec<ReferencedFile>,
}

/// The file now, and those that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileContents {
    /// `None` if it cannot be read, which is a change like another.
    bytes: Option<Vec<u8>>,
    files: Vec<ReferencedFile>,
}

async fn read_files(path: &Path, files: &[ReferencedFile]) -> FileContents {
    let (path, files) = (path.to_owned(), files.to_vec());
    // A network file system may hang; probes must not.
    let looking = tokio::task::spawn_blocking(move || FileContents {
        bytes: config::read(&path).ok(),
        files: files.iter().map(ReferencedFile::restat).collect(),
    });
    looking.await.unwrap_or(FileContents { bytes: None, files: Vec::new() })
}

/// Watches the file until `attempts` closes, and sends a load whenever its bytes or a file that it
/// names have changed, or `asked` says so.
pub async fn watch_config_file(
    file: WatchedConfigFile,
    mut reload_requests: mpsc::Receiver<()>,
    attempts: mpsc::Sender<ReloadAttempt>,
) {
    let WatchedConfigFile { path, bytes, files } = file;
    let (touched, mut touches) = mpsc::channel(1);
    let mut watcher = DirectoryWatcher::new(touched);
    watcher.watch(&path, &files);
    let mut known = FileContents { bytes: Some(bytes), files };
    let mut tick = tokio::time::interval(POLL_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let is_asked = tokio::select! {
            Some(()) = touches.recv() => wait_until_settled(&mut touches, &mut reload_requests).await,
            _ = tick.tick() => false,
            request = reload_requests.recv() => match request {
                Some(()) => true,
                None => return,
            },
        };
        let mut now = read_files(&path, &known.files).await;
        if now == known && !is_asked {
            continue;
        }
        while !is_asked && now != known {
            known = now;
            tokio::time::sleep(QUIET_PERIOD).await;
            now = read_files(&path, &known.files).await;
        }
        let (result, files) = load_config(path.clone(), now.bytes.clone()).await;
        // With nothing to tell which files are meant, those from before are.
        known = FileContents { files: files.unwrap_or(now.files), bytes: now.bytes };
        watcher.watch(&path, &known.files);
        if attempts.send(ReloadAttempt { result }).await.is_err() {
            return;
        }
    }
}

type LoadResult = (Result<PreparedConfig, LoadError>, Option<Vec<ReferencedFile>>);

/// Checks the bytes that came to rest, and not what the file may hold by now; with the files that
/// they name.
async fn load_config(path: PathBuf, bytes: Option<Vec<u8>>) -> LoadResult {
    // Checking a large file takes longer than a probe may wait.
    let at = path.clone();
    let checked = tokio::task::spawn_blocking(move || {
        let loaded = match bytes {
            Some(bytes) => {
                config::parse_bytes(&at.display().to_string(), &bytes).map_err(LoadError::Invalid)
            }
            None => config::load(&at),
        };
        let files = match &loaded {
            Ok(loaded) => Some(loaded.warnings.files.clone()),
            // What could not be read at all names no files; those from before may be the mend.
            Err(LoadError::Invalid(report)) => {
                Some(report.files.clone()).filter(|files| !files.is_empty())
            }
            Err(LoadError::Unreadable { .. }) => None,
        };
        let prepared = loaded.and_then(|loaded| {
            match listener_config::prepare_listeners(&loaded.config.listeners) {
                Ok(listeners) => Ok(PreparedConfig { loaded, listeners }),
                Err(error) => {
                    Err(LoadError::Unreadable { path: at, error: io::Error::other(error) })
                }
            }
        });
        (prepared, files)
    });
    checked.await.unwrap_or_else(|error| {
        (Err(LoadError::Unreadable { path, error: io::Error::other(error) }), None)
    })
}

/// Waits until the file has been left alone; whether a load was asked for meanwhile.
async fn wait_until_settled(
    changes: &mut mpsc::Receiver<()>,
    reload_requests: &mut mpsc::Receiver<()>,
) -> bool {
    let end = Instant::now() + MAX_SETTLE_TIME;
    while Instant::now() < end {
        tokio::select! {
            touch = timeout(QUIET_PERIOD, changes.recv()) => match touch {
                Ok(Some(())) => {}
                _ => return false,
            },
            Some(()) = reload_requests.recv() => return true,
        }
    }
    false
}

/// Watches directories: a file that is replaced by rename or symlink is another file.
struct DirectoryWatcher {
    watcher: Option<RecommendedWatcher>,
    watched: HashSet<PathBuf>,
}

impl DirectoryWatcher {
    fn new(changes: mpsc::Sender<()>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading is an event too.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = changes.try_send(());
            }
        });
        let watcher = watcher.map_err(|error| log_watch_error(&error)).ok();
        Self { watcher, watched: HashSet::new() }
    }

    /// Watches where these files are, and nothing else from now on.
    fn watch(&mut self, path: &Path, files: &[ReferencedFile]) {
        let Some(watcher) = &mut self.watcher else { return };
        let all = files.iter().map(|file| file.path.as_path()).chain([path]);
        let wanted: HashSet<PathBuf> = all.map(parent_directory).collect();
        for gone in self.watched.difference(&wanted) {
            // A directory that was removed is not watched any more.
            let _ = watcher.unwatch(gone);
        }
        for new in wanted.difference(&self.watched) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                log_watch_error(&error);
            }
        }
        self.watched = wanted;
    }
}

fn parent_directory(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new(".")).to_owned()
}

fn log_watch_error(error: &notify::Error) {
    tracing::warn!(%error, "files cannot be watched; they are looked at every two seconds");
}

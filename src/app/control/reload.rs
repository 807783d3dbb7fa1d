//! Watches the configuration file and the files that it names, and loads a change on a blocking
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
use crate::app::ops::admin::access::AdminAccess;

/// Time without a change before a file is read: editors and config-map swaps write in steps, and a
/// half-written file may be valid.
const QUIET_PERIOD: Duration = Duration::from_millis(200);

/// Upper bound of the wait for [`QUIET_PERIOD`] in a directory with constant changes.
const MAX_SETTLE_TIME: Duration = Duration::from_secs(2);

/// inotify misses bind mounts, network file systems and symlinks into other directories; polling
/// covers these.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Result of one attempt to load the file.
#[derive(Debug)]
pub struct ReloadAttempt {
    pub result: Result<PreparedConfig, LoadError>,
}

/// A configuration that has passed validation, with its listeners' TLS set up.
#[derive(Debug)]
pub struct PreparedConfig {
    pub loaded: LoadedConfig,
    pub listeners: Vec<ListenerConfig>,
    /// TLS and token of the admin listener.
    pub admin_access: AdminAccess,
}

/// A configuration file, and its contents as they are running.
#[derive(Debug)]
pub struct WatchedConfigFile {
    pub path: PathBuf,
    /// Contents when it was loaded.
    pub bytes: Vec<u8>,
    /// Files that it names, with their state at that time.
    pub files: Vec<ReferencedFile>,
}

/// Contents of the file, and the state of the files that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileContents {
    /// `None` if unreadable, which counts as a change too.
    bytes: Option<Vec<u8>>,
    files: Vec<ReferencedFile>,
}

async fn read_files(path: &Path, files: &[ReferencedFile]) -> FileContents {
    let (path, files) = (path.to_owned(), files.to_vec());
    // A network file system may block; the control thread must not.
    let reading = tokio::task::spawn_blocking(move || FileContents {
        bytes: config::read(&path).ok(),
        files: files.iter().map(ReferencedFile::restat).collect(),
    });
    reading.await.unwrap_or(FileContents { bytes: None, files: Vec::new() })
}

/// Watches the file until `attempts` closes. Sends a load attempt when its bytes or a file that it
/// names have changed, and on every message of `reload_requests`.
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
        let is_requested = tokio::select! {
            Some(()) = touches.recv() => wait_until_settled(&mut touches, &mut reload_requests).await,
            _ = tick.tick() => false,
            request = reload_requests.recv() => match request {
                Some(()) => true,
                None => return,
            },
        };
        let mut now = read_files(&path, &known.files).await;
        if now == known && !is_requested {
            continue;
        }
        while !is_requested && now != known {
            known = now;
            tokio::time::sleep(QUIET_PERIOD).await;
            now = read_files(&path, &known.files).await;
        }
        let (result, files) = load_config(path.clone(), now.bytes.clone()).await;
        // An unreadable file names no files: those named before stay watched.
        known = FileContents { files: files.unwrap_or(now.files), bytes: now.bytes };
        watcher.watch(&path, &known.files);
        if attempts.send(ReloadAttempt { result }).await.is_err() {
            return;
        }
    }
}

type LoadResult = (Result<PreparedConfig, LoadError>, Option<Vec<ReferencedFile>>);

/// Validates `bytes`, not what the file may hold by now. Also returns the files that they name.
async fn load_config(path: PathBuf, bytes: Option<Vec<u8>>) -> LoadResult {
    // Validating a large file would delay probes.
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
            // A file that cannot be parsed names no files; a change of those named before may
            // repair it.
            Err(LoadError::Invalid(report)) => {
                Some(report.files.clone()).filter(|files| !files.is_empty())
            }
            Err(LoadError::Unreadable { .. }) => None,
        };
        let prepared = loaded.and_then(|loaded| {
            let prepared = listener_config::prepare_listeners(&loaded.config.listeners)
                .and_then(|ready| Ok((ready, AdminAccess::prepare(&loaded.config.admin)?)));
            match prepared {
                Ok((listeners, admin_access)) => {
                    Ok(PreparedConfig { loaded, listeners, admin_access })
                }
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

/// Waits for [`QUIET_PERIOD`] without a change. Returns whether a reload was requested meanwhile.
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

/// Watches directories, not files: a rename or symlink swap replaces the inode of the file.
struct DirectoryWatcher {
    watcher: Option<RecommendedWatcher>,
    watched: HashSet<PathBuf>,
}

impl DirectoryWatcher {
    fn new(changes: mpsc::Sender<()>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // The watcher also reports reads, including our own.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = changes.try_send(());
            }
        });
        let watcher = watcher.map_err(|error| log_watch_error(&error)).ok();
        Self { watcher, watched: HashSet::new() }
    }

    /// Watches the directories of these files and stops watching all others.
    fn watch(&mut self, path: &Path, files: &[ReferencedFile]) {
        let Some(watcher) = &mut self.watcher else { return };
        let all = files.iter().map(|file| file.path.as_path()).chain([path]);
        let wanted: HashSet<PathBuf> = all.map(parent_directory).collect();
        for gone in self.watched.difference(&wanted) {
            // Fails for a removed directory, which is no longer watched anyway.
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
    tracing::warn!(%error, "files cannot be watched; they are polled every two seconds");
}

//! Sees that the configuration file, or one that it names, has changed, and reads it off the control
//! thread.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::config::{self, LoadError, Loaded, NamedFile};

use super::front::{self, Front};

/// A file must have been left alone for this long: editors and config-map swaps write in steps, and
/// a half-written file may be a valid one.
const QUIET: Duration = Duration::from_millis(200);

/// In a directory that is never left alone, the file is looked at after this long all the same.
const SETTLE_AT_MOST: Duration = Duration::from_secs(2);

/// Watches miss bind mounts, network file systems and symlinks in other directories: look as well.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a look at the file gave.
#[derive(Debug)]
pub struct Attempt {
    /// The configuration, or why there is none.
    pub result: Result<Prepared, LoadError>,
}

/// A configuration that passed every check, and what listeners need of it.
#[derive(Debug)]
pub struct Prepared {
    /// The configuration.
    pub loaded: Loaded,
    /// How connections are taken, listener by listener.
    pub fronts: Vec<Front>,
}

/// A configuration file and what runs of it.
#[derive(Debug)]
pub struct Watched {
    /// The file.
    pub path: PathBuf,
    /// What it held when it was loaded.
    pub bytes: Vec<u8>,
    /// The files that it names, as they were then.
    pub files: Vec<NamedFile>,
}

/// The file now, and those that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    /// `None` if it cannot be read, which is a change like another.
    bytes: Option<Vec<u8>>,
    files: Vec<NamedFile>,
}

async fn look(path: &Path, files: &[NamedFile]) -> Look {
    let (path, files) = (path.to_owned(), files.to_vec());
    // A network file system may hang; probes must not.
    let looking = tokio::task::spawn_blocking(move || Look {
        bytes: config::read(&path).ok(),
        files: files.iter().map(NamedFile::again).collect(),
    });
    looking.await.unwrap_or(Look { bytes: None, files: Vec::new() })
}

/// Watches the file until `attempts` closes, and sends a load whenever its bytes or a file that it
/// names have changed, or `asked` says so.
pub async fn watch(file: Watched, mut asked: mpsc::Receiver<()>, attempts: mpsc::Sender<Attempt>) {
    let Watched { path, bytes, files } = file;
    let (touched, mut touches) = mpsc::channel(1);
    let mut watcher = Directories::new(touched);
    watcher.watch(&path, &files);
    let mut known = Look { bytes: Some(bytes), files };
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let is_asked = tokio::select! {
            Some(()) = touches.recv() => settle(&mut touches, &mut asked).await,
            _ = tick.tick() => false,
            request = asked.recv() => match request {
                Some(()) => true,
                None => return,
            },
        };
        let mut now = look(&path, &known.files).await;
        if now == known && !is_asked {
            continue;
        }
        while !is_asked && now != known {
            known = now;
            tokio::time::sleep(QUIET).await;
            now = look(&path, &known.files).await;
        }
        let (result, files) = load(path.clone(), now.bytes.clone()).await;
        // With nothing to tell which files are meant, those from before are.
        known = Look { files: files.unwrap_or(now.files), bytes: now.bytes };
        watcher.watch(&path, &known.files);
        if attempts.send(Attempt { result }).await.is_err() {
            return;
        }
    }
}

type Load = (Result<Prepared, LoadError>, Option<Vec<NamedFile>>);

/// Checks the bytes that came to rest, and not what the file may hold by now; with the files that
/// they name.
async fn load(path: PathBuf, bytes: Option<Vec<u8>>) -> Load {
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
        let prepared = loaded.and_then(|loaded| match front::prepare(&loaded.config.listen) {
            Ok(fronts) => Ok(Prepared { loaded, fronts }),
            Err(error) => Err(LoadError::Unreadable { path: at, error: io::Error::other(error) }),
        });
        (prepared, files)
    });
    checked.await.unwrap_or_else(|error| {
        (Err(LoadError::Unreadable { path, error: io::Error::other(error) }), None)
    })
}

/// Waits until the file has been left alone; whether a load was asked for meanwhile.
async fn settle(touches: &mut mpsc::Receiver<()>, asked: &mut mpsc::Receiver<()>) -> bool {
    let end = Instant::now() + SETTLE_AT_MOST;
    while Instant::now() < end {
        tokio::select! {
            touch = timeout(QUIET, touches.recv()) => match touch {
                Ok(Some(())) => {}
                _ => return false,
            },
            Some(()) = asked.recv() => return true,
        }
    }
    false
}

/// Watches directories: a file that is replaced by rename or symlink is another file.
struct Directories {
    watcher: Option<RecommendedWatcher>,
    watched: HashSet<PathBuf>,
}

impl Directories {
    fn new(touched: mpsc::Sender<()>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading is an event too.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = touched.try_send(());
            }
        });
        let watcher = watcher.map_err(|error| say_unwatched(&error)).ok();
        Self { watcher, watched: HashSet::new() }
    }

    /// Watches where these files are, and nothing else from now on.
    fn watch(&mut self, path: &Path, files: &[NamedFile]) {
        let Some(watcher) = &mut self.watcher else { return };
        let all = files.iter().map(|file| file.path.as_path()).chain([path]);
        let wanted: HashSet<PathBuf> = all.map(directory).collect();
        for gone in self.watched.difference(&wanted) {
            // A directory that was removed is not watched any more.
            let _ = watcher.unwatch(gone);
        }
        for new in wanted.difference(&self.watched) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                say_unwatched(&error);
            }
        }
        self.watched = wanted;
    }
}

fn directory(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new(".")).to_owned()
}

fn say_unwatched(error: &notify::Error) {
    tracing::warn!(%error, "files cannot be watched; they are looked at every two seconds");
}

//! Sees that the configuration file has changed, and reads it off the control thread.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::config::{self, LoadError, Loaded};

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
    pub result: Result<Loaded, LoadError>,
}

/// A configuration file and the bytes that run.
#[derive(Debug)]
pub struct Watched {
    /// The file.
    pub path: PathBuf,
    /// What it held when it was loaded.
    pub bytes: Vec<u8>,
}

/// The bytes of the file now; `None` if it cannot be read, which is a change like another.
async fn look(path: &Path) -> Option<Vec<u8>> {
    let path = path.to_owned();
    // A network file system may hang; probes must not.
    tokio::task::spawn_blocking(move || config::read(&path).ok()).await.ok().flatten()
}

/// Watches the file until `attempts` closes, and sends a load whenever its bytes have changed or
/// `asked` says so.
pub async fn watch(file: Watched, mut asked: mpsc::Receiver<()>, attempts: mpsc::Sender<Attempt>) {
    let Watched { path, bytes } = file;
    let (touched, mut touches) = mpsc::channel(1);
    let _watcher = watcher(&path, touched);
    let mut known = Some(bytes);
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
        let mut now = look(&path).await;
        if now == known && !is_asked {
            continue;
        }
        while !is_asked && now != known {
            known = now;
            tokio::time::sleep(QUIET).await;
            now = look(&path).await;
        }
        known = now.clone();
        let result = load(path.clone(), now).await;
        if attempts.send(Attempt { result }).await.is_err() {
            return;
        }
    }
}

/// Checks the bytes that came to rest, and not what the file may hold by now.
async fn load(path: PathBuf, bytes: Option<Vec<u8>>) -> Result<Loaded, LoadError> {
    // Checking a large file takes longer than a probe may wait.
    let at = path.clone();
    let checked = tokio::task::spawn_blocking(move || match bytes {
        Some(bytes) => {
            config::parse_bytes(&at.display().to_string(), &bytes).map_err(LoadError::Invalid)
        }
        None => config::load(&at),
    });
    checked.await.unwrap_or_else(|error| {
        Err(LoadError::Unreadable { path, error: std::io::Error::other(error) })
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

/// Watches the directory: a file that is replaced by rename or symlink is another file.
fn watcher(path: &Path, touched: mpsc::Sender<()>) -> Option<impl Watcher> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading is an event too.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            let _ = touched.try_send(());
        }
    });
    let watched = watcher.and_then(|mut watcher| {
        let directory = directory.unwrap_or_else(|| Path::new("."));
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    match watched {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "the file cannot be watched; it is looked at every two seconds");
            None
        }
    }
}

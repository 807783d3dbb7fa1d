//! Sees that the configuration file has changed, and reads it off the control thread.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::config::{self, LoadError, Loaded};

/// A file must have been left alone for this long: editors and config-map swaps write in steps.
const QUIET: Duration = Duration::from_millis(200);

/// Watches miss bind mounts, network file systems and symlinks in other directories: look as well.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a look at the file gave.
#[derive(Debug)]
pub struct Attempt {
    /// The configuration, or why there is none.
    pub result: Result<Loaded, LoadError>,
}

/// The text of a file, to see whether it has changed; an unreadable one is a text of its own.
fn fingerprint(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}

/// Watches `path` until `attempts` closes, and sends a load whenever its text has changed or
/// `asked` says so.
pub async fn watch(path: PathBuf, mut asked: mpsc::Receiver<()>, attempts: mpsc::Sender<Attempt>) {
    let (touched, mut touches) = mpsc::channel(1);
    let _watcher = watcher(&path, touched);
    let mut known = fingerprint(&path);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut is_asked = false;
        tokio::select! {
            Some(()) = touches.recv() => settle(&mut touches).await,
            _ = look.tick() => {}
            request = asked.recv() => match request {
                Some(()) => is_asked = true,
                None => return,
            },
        }
        let mut now = fingerprint(&path);
        if now == known && !is_asked {
            continue;
        }
        while !is_asked && now != known {
            known = now;
            // A half-written file may be a valid one: take it only when it has come to rest.
            tokio::time::sleep(QUIET).await;
            now = fingerprint(&path);
        }
        known = now;
        let file = path.clone();
        // Parsing a large file takes longer than a probe may wait.
        let loaded = tokio::task::spawn_blocking(move || config::load(&file)).await;
        let Ok(result) = loaded else { return };
        if attempts.send(Attempt { result }).await.is_err() {
            return;
        }
    }
}

/// Waits until the file has been left alone.
async fn settle(touches: &mut mpsc::Receiver<()>) {
    while let Ok(Some(())) = tokio::time::timeout(QUIET, touches.recv()).await {}
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
        watcher.watch(directory.unwrap_or_else(|| Path::new(".")), RecursiveMode::NonRecursive)?;
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

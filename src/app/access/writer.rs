//! The thread that writes the lines. It alone may be held up, by a full disk or a pipe that nobody
//! reads.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::app::shared::Shared;
use crate::config::model::LogTarget;

use super::queue::AccessLog;

/// Lines are gathered for this long, so that one write and one waking serve many.
const REST: Duration = Duration::from_millis(10);

/// The longest sleep.
const SLEEP: Duration = Duration::from_secs(1);

/// What is written at once, about.
const GATHER_BYTES: usize = 64 * 1024;

/// Time between two complaints, and between two attempts to open a file that cannot be opened.
const COMPLAINTS_APART: Duration = Duration::from_secs(1);

/// Time that a stop grants to lines that are not written yet.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Who may read the file: addresses of clients are personal data.
const FILE_MODE: u32 = 0o640;

/// The running writer.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    ended: Receiver<()>,
}

/// Starts the thread that writes what workers log.
///
/// # Errors
/// If no thread can be made.
pub fn start(shared: &Arc<Shared>) -> io::Result<Writer> {
    let (end, ended) = mpsc::channel();
    if let Some(lines) = shared.access.take_receiver() {
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        let queue = Arc::clone(&shared);
        let handle = thread.spawn(move || {
            Work::new(&queue.access, lines).run();
            let _ = end.send(());
        })?;
        shared.access.written_by(handle.thread().clone());
    }
    Ok(Writer { shared: Arc::clone(shared), ended })
}

impl Writer {
    /// Has what is left written, if somebody takes it soon.
    pub fn finish(&self) {
        self.shared.access.end();
        let _ = self.ended.recv_timeout(LAST_WORDS);
    }
}

/// Where lines go.
#[derive(Debug)]
enum Sink {
    /// Nowhere.
    Off,
    Open(File),
    /// To a file that cannot be opened; when to try again.
    Lost(Instant),
}

struct Work<'a> {
    log: &'a AccessLog,
    lines: Receiver<Bytes>,
    sink: Sink,
    opened: u64,
    /// The last write ended inside a line.
    is_torn: bool,
    complained: Option<Instant>,
}

impl<'a> Work<'a> {
    fn new(log: &'a AccessLog, lines: Receiver<Bytes>) -> Self {
        Self { log, lines, sink: Sink::Off, opened: 0, is_torn: false, complained: None }
    }

    fn run(mut self) {
        let mut batch = Vec::with_capacity(GATHER_BYTES);
        loop {
            let is_ending = self.log.is_ending();
            self.open();
            while self.gather(&mut batch) {
                self.write(&batch);
                batch.clear();
            }
            if is_ending {
                return;
            }
            std::thread::sleep(REST);
            self.sleep(&mut batch);
        }
    }

    /// Sleeps until there is something to do, if there is nothing.
    fn sleep(&mut self, batch: &mut Vec<u8>) {
        self.log.fall_asleep();
        let has_work =
            self.take(batch) || self.log.opening() != self.opened || self.log.is_ending();
        if !has_work {
            std::thread::park_timeout(SLEEP);
        }
        self.log.stay_awake();
    }

    /// Whether there are lines to write.
    fn gather(&self, batch: &mut Vec<u8>) -> bool {
        while batch.len() < GATHER_BYTES && self.take(batch) {}
        !batch.is_empty()
    }

    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let Ok(line) = self.lines.try_recv() else { return false };
        self.log.taken(line.len());
        batch.extend_from_slice(&line);
        true
    }

    /// Opens what is to be written to, if that has been asked for since the last time.
    fn open(&mut self) {
        let opening = self.log.opening();
        if self.opened != opening {
            self.opened = opening;
            self.open_now();
        }
    }

    fn open_now(&mut self) {
        self.is_torn = false;
        let opened = match self.log.target() {
            LogTarget::Off => {
                self.sink = Sink::Off;
                return;
            }
            LogTarget::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            LogTarget::File(path) => open_file(&path),
        };
        self.sink = match opened {
            Ok(file) => Sink::Open(file),
            Err(error) => {
                self.complain("the access log cannot be opened; its lines are lost", &error);
                Sink::Lost(Instant::now())
            }
        };
    }

    fn write(&mut self, batch: &[u8]) {
        if let Sink::Lost(since) = self.sink
            && since.elapsed() >= COMPLAINTS_APART
        {
            self.open_now();
        }
        let file = match &mut self.sink {
            Sink::Off => return,
            Sink::Lost(_) => return self.log.lost(count_lines(batch)),
            Sink::Open(file) => file,
        };
        // What a full disk has cut must not run into the next line.
        let begun = if self.is_torn { write_all(file, b"\n", self.log) } else { Ok(()) };
        let written = match begun {
            Ok(()) => write_all(file, batch, self.log),
            Err((_, error)) => Err((0, error)),
        };
        match written {
            Ok(()) => self.is_torn = false,
            Err((written, error)) => {
                if let Some(last) = batch[..written].last() {
                    self.is_torn = *last != b'\n';
                }
                self.log.lost(count_lines(&batch[written..]));
                self.complain("the access log cannot be written; its lines are lost", &error);
            }
        }
    }

    fn complain(&mut self, what: &str, error: &io::Error) {
        let now = Instant::now();
        let said = self.complained;
        if said.is_none_or(|said| now.saturating_duration_since(said) >= COMPLAINTS_APART) {
            self.complained = Some(now);
            tracing::error!(%error, "{what}");
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&b| b == b'\n').count() as u64
}

/// Writes all of it, or says how much was written and why no more.
fn write_all(file: &mut File, bytes: &[u8], log: &AccessLog) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return Err((written, ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A pipe that somebody else has made so: it will be read again, or we end.
            Err(error) if error.kind() == ErrorKind::WouldBlock && !log.is_ending() => {
                std::thread::sleep(REST);
            }
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

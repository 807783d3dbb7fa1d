//! The writer thread of the access log: only this thread blocks on a full disk or a pipe without a
//! reader.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::config::model::AccessLogTarget;

use super::queue::AccessLogQueue;

/// Time to collect lines, so that one wake-up and one write serve many.
const BATCH_INTERVAL: Duration = Duration::from_millis(10);

const MAX_SLEEP: Duration = Duration::from_secs(1);

/// Approximate size of one write.
const BATCH_BYTES: usize = 64 * 1024;

/// Interval between two warnings, and between two attempts to open the file.
const ERROR_INTERVAL: Duration = Duration::from_secs(1);

/// Time that a shutdown grants to queued lines.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Not readable by others: client addresses are personal data.
const FILE_MODE: u32 = 0o640;

#[derive(Debug)]
pub struct AccessLogWriter {
    log: Arc<AccessLogQueue>,
    ended: Receiver<()>,
}

/// Starts the writer thread.
///
/// # Errors
/// If the thread cannot be created.
pub fn start(log: &Arc<AccessLogQueue>) -> io::Result<AccessLogWriter> {
    let (end, ended) = mpsc::channel();
    if let Some(lines) = log.take_receiver() {
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        let written_log = Arc::clone(log);
        let handle = thread.spawn(move || {
            AccessLogTask::new(&written_log, lines).run();
            let _ = end.send(());
        })?;
        log.set_writer(handle.thread().clone());
    }
    Ok(AccessLogWriter { log: Arc::clone(log), ended })
}

impl AccessLogWriter {
    /// Lets the writer finish the queued lines, within a timeout.
    pub fn finish(&self) {
        self.log.stop();
        let _ = self.ended.recv_timeout(STOP_TIMEOUT);
    }
}

#[derive(Debug)]
enum LogSink {
    Off,
    Open(File),
    /// A file that cannot be opened, and the time of the next attempt.
    Unavailable(Instant),
}

struct AccessLogTask<'a> {
    log: &'a AccessLogQueue,
    lines: Receiver<Bytes>,
    sink: LogSink,
    opened_epoch: u64,
    /// The last write ended within a line.
    is_line_partial: bool,
    last_error_log: Option<Instant>,
}

impl<'a> AccessLogTask<'a> {
    fn new(log: &'a AccessLogQueue, lines: Receiver<Bytes>) -> Self {
        Self {
            log,
            lines,
            sink: LogSink::Off,
            opened_epoch: 0,
            is_line_partial: false,
            last_error_log: None,
        }
    }

    fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        loop {
            let is_ending = self.log.is_stopping();
            self.reopen_if_requested();
            while self.fill_batch(&mut batch) {
                self.write_batch(&batch);
                batch.clear();
            }
            if is_ending {
                return;
            }
            std::thread::sleep(BATCH_INTERVAL);
            self.sleep(&mut batch);
        }
    }

    /// Sleeps until a line or an instruction arrives, or the maximum sleep has passed.
    fn sleep(&mut self, batch: &mut Vec<u8>) {
        self.log.mark_asleep();
        let has_work = self.take_line(batch)
            || self.log.reopen_epoch() != self.opened_epoch
            || self.log.is_stopping();
        if !has_work {
            std::thread::park_timeout(MAX_SLEEP);
        }
        self.log.mark_awake();
    }

    /// Whether there are lines to write.
    fn fill_batch(&self, batch: &mut Vec<u8>) -> bool {
        while batch.len() < BATCH_BYTES && self.take_line(batch) {}
        !batch.is_empty()
    }

    fn take_line(&self, batch: &mut Vec<u8>) -> bool {
        let Ok(line) = self.lines.try_recv() else { return false };
        self.log.release_bytes(line.len());
        batch.extend_from_slice(&line);
        true
    }

    /// Reopens the target if that was requested since the last time.
    fn reopen_if_requested(&mut self) {
        let reopen_epoch = self.log.reopen_epoch();
        if self.opened_epoch != reopen_epoch {
            self.opened_epoch = reopen_epoch;
            self.open_target();
        }
    }

    fn open_target(&mut self) {
        self.is_line_partial = false;
        let opened = match self.log.target() {
            AccessLogTarget::Off => {
                self.sink = LogSink::Off;
                return;
            }
            AccessLogTarget::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            AccessLogTarget::File(path) => open_file(&path),
        };
        self.sink = match opened {
            Ok(file) => LogSink::Open(file),
            Err(error) => {
                self.log_error_rate_limited(
                    "the access log cannot be opened; its lines are lost",
                    &error,
                );
                LogSink::Unavailable(Instant::now())
            }
        };
    }

    fn write_batch(&mut self, batch: &[u8]) {
        if let LogSink::Unavailable(since) = self.sink
            && since.elapsed() >= ERROR_INTERVAL
        {
            self.open_target();
        }
        let file = match &mut self.sink {
            LogSink::Off => return,
            LogSink::Unavailable(_) => return self.log.count_dropped(count_lines(batch)),
            LogSink::Open(file) => file,
        };
        // A line that a full disk has cut must not run into the next one.
        let separator =
            if self.is_line_partial { write_all(file, b"\n", self.log) } else { Ok(()) };
        let written = match separator {
            Ok(()) => write_all(file, batch, self.log),
            Err((_, error)) => Err((0, error)),
        };
        match written {
            Ok(()) => self.is_line_partial = false,
            Err((written, error)) => {
                if let Some(last) = batch[..written].last() {
                    self.is_line_partial = *last != b'\n';
                }
                self.log.count_dropped(count_lines(&batch[written..]));
                self.log_error_rate_limited(
                    "the access log cannot be written; its lines are lost",
                    &error,
                );
            }
        }
    }

    fn log_error_rate_limited(&mut self, message: &str, error: &io::Error) {
        let now = Instant::now();
        let last = self.last_error_log;
        if last.is_none_or(|last| now.saturating_duration_since(last) >= ERROR_INTERVAL) {
            self.last_error_log = Some(now);
            tracing::error!(%error, "{message}");
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&b| b == b'\n').count() as u64
}

/// Writes all of it; otherwise returns how much was written and the error.
fn write_all(
    file: &mut File,
    bytes: &[u8],
    log: &AccessLogQueue,
) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return Err((written, ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A pipe that another process made non-blocking: wait until it is read, or until
            // shutdown.
            Err(error) if error.kind() == ErrorKind::WouldBlock && !log.is_stopping() => {
                std::thread::sleep(BATCH_INTERVAL);
            }
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

//! The queue of log lines from the workers to the writer thread.

use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::Thread;

use bytes::Bytes;

use crate::config::model::AccessLogTarget;

/// Limit of lines in the queue.
const QUEUE_LINES: usize = 16 * 1024;

/// Limit of their bytes.
const QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// The queue and the writer's instructions; shared by all threads.
#[derive(Debug)]
pub struct AccessLogQueue {
    lines: SyncSender<Bytes>,
    queued_bytes: AtomicUsize,
    dropped: AtomicU64,
    /// The writer waits for a line.
    is_asleep: AtomicBool,
    is_stopping: AtomicBool,
    /// Increases with each request to reopen the target.
    reopen_epoch: AtomicU64,
    target: Mutex<AccessLogTarget>,
    receiver: Mutex<Option<Receiver<Bytes>>>,
    writer: OnceLock<Thread>,
}

impl Default for AccessLogQueue {
    fn default() -> Self {
        let (lines, receiver) = sync_channel(QUEUE_LINES);
        Self {
            lines,
            queued_bytes: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            is_asleep: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            reopen_epoch: AtomicU64::new(0),
            target: Mutex::default(),
            receiver: Mutex::new(Some(receiver)),
            writer: OnceLock::new(),
        }
    }
}

impl AccessLogQueue {
    /// Sets the target of lines, and reopens it even if it is the same file.
    pub fn set_target(&self, target: &AccessLogTarget) {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).clone_from(target);
        self.reopen();
    }

    /// Reopens the file, which log rotation has moved.
    pub fn reopen(&self) {
        self.reopen_epoch.fetch_add(1, SeqCst);
        self.wake();
    }

    /// Lines dropped because the queue was full or a write failed.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Queues a line, or counts a drop. Never waits.
    pub(super) fn push(&self, line: Bytes) {
        let length = line.len();
        let has_room = self.queued_bytes.fetch_add(length, Relaxed) + length <= QUEUE_BYTES;
        if !has_room || self.lines.try_send(line).is_err() {
            self.queued_bytes.fetch_sub(length, Relaxed);
            self.count_dropped(1);
            return;
        }
        if self.is_asleep.load(SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        if self.is_asleep.swap(false, SeqCst)
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }

    pub(super) fn count_dropped(&self, lines: u64) {
        self.dropped.fetch_add(lines, Relaxed);
    }

    pub(super) fn target(&self) -> AccessLogTarget {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn reopen_epoch(&self) -> u64 {
        self.reopen_epoch.load(SeqCst)
    }

    pub(super) fn release_bytes(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Relaxed);
    }

    pub(super) fn take_receiver(&self) -> Option<Receiver<Bytes>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn set_writer(&self, writer: Thread) {
        let _ = self.writer.set(writer);
    }

    pub(super) fn mark_asleep(&self) {
        self.is_asleep.store(true, SeqCst);
    }

    pub(super) fn mark_awake(&self) {
        self.is_asleep.store(false, SeqCst);
    }

    pub(super) fn stop(&self) {
        self.is_stopping.store(true, SeqCst);
        self.is_asleep.store(true, SeqCst);
        self.wake();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(SeqCst)
    }
}

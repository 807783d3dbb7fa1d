//! Combines the small writes of one poll into one write.
//!
//! h2 writes and flushes every DATA frame of more than a few hundred bytes by itself. Each of
//! thirty small responses on one connection would be a TLS record and a system call of its own.
//! The coalescer buffers them until the connection has been polled.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of the buffer, at most: about what a socket accepts at once.
const MAX_BUFFERED_BYTES: usize = 64 * 1024;

/// Writes of at least this size are not copied.
const MAX_COPIED_BYTES: usize = 8 * 1024;

thread_local! {
    /// A buffer between uses: idle connections own none.
    static SPARE_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A stream whose writes and flushes wait for [`Self::flush`]. Clones share the stream.
#[derive(Debug)]
pub struct WriteCoalescer<S>(Rc<RefCell<CoalescerInner<S>>>);

#[derive(Debug)]
struct CoalescerInner<S> {
    stream: S,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are written.
    flushed_bytes: usize,
    /// Bytes were written since the last flush of the stream.
    is_unflushed: bool,
    /// An error of a flush that has not been reported to the writer.
    pending_error: Option<io::Error>,
}

impl<S> Clone for WriteCoalescer<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S> WriteCoalescer<S> {
    /// Buffers the writes to `stream`.
    pub fn new(stream: S) -> Self {
        let inner = CoalescerInner {
            stream,
            buffer: Vec::new(),
            flushed_bytes: 0,
            is_unflushed: false,
            pending_error: None,
        };
        Self(Rc::new(RefCell::new(inner)))
    }

    /// Calls `inspect` with the underlying stream.
    pub fn with_stream<T>(&self, inspect: impl FnOnce(&S) -> T) -> T {
        inspect(&self.0.borrow().stream)
    }
}

impl<S: AsyncWrite + Unpin> WriteCoalescer<S> {
    /// Writes the buffer and flushes the stream; call it whenever the writer has been polled. Bytes
    /// that the stream does not accept yet are written when it wakes the task that polls both. An
    /// error is reported at the writer's next write, or after it has read all available bytes.
    pub fn flush(&self, cx: &mut Context<'_>) {
        let inner = &mut *self.0.borrow_mut();
        if !inner.is_unflushed || inner.pending_error.is_some() {
            return;
        }
        if let Poll::Ready(Err(error)) = inner.poll_flush_all(cx) {
            inner.pending_error = Some(error);
            cx.waker().wake_by_ref();
        }
    }
}

impl<S: AsyncWrite + Unpin> CoalescerInner<S> {
    fn poll_flush_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_buffer(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.is_unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_write_buffer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.flushed_bytes < self.buffer.len() {
            let rest = &self.buffer[self.flushed_bytes..];
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.flushed_bytes += written;
        }
        self.flushed_bytes = 0;
        if self.buffer.capacity() > 0 {
            self.buffer.clear();
            SPARE_BUFFER.set(std::mem::take(&mut self.buffer));
        }
        Poll::Ready(Ok(()))
    }

    /// Buffers `parts`, of `bytes` in total, or writes them at once if they are large.
    fn poll_buffer(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        bytes: usize,
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.pending_error.take() {
            return Poll::Ready(Err(error));
        }
        self.is_unflushed = true;
        if bytes >= MAX_COPIED_BYTES || self.buffer.len() + bytes > MAX_BUFFERED_BYTES {
            ready!(self.poll_write_buffer(cx))?;
        }
        if bytes >= MAX_COPIED_BYTES {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        }
        if self.buffer.capacity() == 0 {
            self.buffer = SPARE_BUFFER.take();
        }
        parts.iter().for_each(|part| self.buffer.extend_from_slice(part));
        Poll::Ready(Ok(bytes))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteCoalescer<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        let read = Pin::new(&mut inner.stream).poll_read(cx, buf);
        match inner.pending_error.take_if(|_| read.is_pending()) {
            Some(error) => Poll::Ready(Err(error)),
            None => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteCoalescer<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_buffer(cx, &[IoSlice::new(bytes)], bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = parts.iter().map(|part| part.len()).sum();
        self.0.borrow_mut().poll_buffer(cx, parts, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_flush_all(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

pin_project! {
    /// A future that writes to a coalesced stream, which is flushed whenever the future has been
    /// polled.
    pub struct FlushAfterPoll<F, S> {
        #[pin]
        writer: F,
        stream: WriteCoalescer<S>,
    }
}

impl<F, S> FlushAfterPoll<F, S> {
    /// Runs `writer`, which writes to `stream`.
    pub fn new(writer: F, stream: WriteCoalescer<S>) -> Self {
        Self { writer, stream }
    }

    pub fn writer(self: Pin<&mut Self>) -> Pin<&mut F> {
        self.project().writer
    }
}

impl<F: Future, S: AsyncWrite + Unpin> Future for FlushAfterPoll<F, S> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let output = this.writer.poll(cx);
        this.stream.flush(cx);
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::VecDeque;
    use std::task::Waker;

    use proptest::prelude::*;

    /// Accepts as many bytes a write as `write_limits` state in turn; 0 is pending, and without a
    /// limit all are accepted.
    #[derive(Default)]
    struct MockStream {
        write_limits: VecDeque<usize>,
        writes: Vec<Vec<u8>>,
        flushes: usize,
        is_reset: bool,
        unread: Vec<u8>,
    }

    impl AsyncRead for MockStream {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.unread.is_empty() {
                return Poll::Pending;
            }
            buf.put_slice(&std::mem::take(&mut self.unread));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for MockStream {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.is_reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            match self.write_limits.pop_front().unwrap_or(usize::MAX).min(bytes.len()) {
                0 => Poll::Pending,
                taken => {
                    self.writes.push(bytes[..taken].to_vec());
                    Poll::Ready(Ok(taken))
                }
            }
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(cx)
        }
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    /// Writes and flushes, as h2 does with each frame; returns the number of bytes accepted.
    fn write_and_flush(stream: &WriteCoalescer<MockStream>, bytes: &[u8]) -> usize {
        let mut stream = stream.clone();
        let Poll::Ready(written) = Pin::new(&mut stream).poll_write(&mut cx(), bytes) else {
            return 0;
        };
        assert!(Pin::new(&mut stream).poll_flush(&mut cx()).is_ready());
        written.expect("written")
    }

    fn read_available(stream: &WriteCoalescer<MockStream>) -> Poll<io::Result<usize>> {
        let mut space = [0; 64];
        let mut buf = ReadBuf::new(&mut space);
        let read = Pin::new(&mut stream.clone()).poll_read(&mut cx(), &mut buf);
        read.map_ok(|()| buf.filled().len())
    }

    #[test]
    fn writes_between_flushes_are_coalesced() {
        let stream = WriteCoalescer::new(MockStream::default());
        for word in ["one ", "two ", "three"] {
            assert_eq!(write_and_flush(&stream, word.as_bytes()), word.len());
        }
        stream.with_stream(|inner| assert!(inner.writes.is_empty()));
        stream.flush(&mut cx());
        stream.with_stream(|inner| assert_eq!(inner.writes, [b"one two three"]));
        assert_eq!(stream.0.borrow().buffer.capacity(), 0, "at rest");
        // Without new bytes the stream is not written.
        stream.flush(&mut cx());
        stream.with_stream(|inner| assert_eq!((inner.writes.len(), inner.flushes), (1, 1)));
    }

    #[test]
    fn large_write_is_not_copied() {
        let stream = WriteCoalescer::new(MockStream::default());
        write_and_flush(&stream, b"head");
        assert_eq!(write_and_flush(&stream, &[7; MAX_COPIED_BYTES]), MAX_COPIED_BYTES);
        stream.with_stream(|inner| {
            assert_eq!(inner.writes, [b"head".to_vec(), vec![7; MAX_COPIED_BYTES]]);
        });
    }

    #[test]
    fn write_error_is_reported_after_received_data() {
        let stream = WriteCoalescer::new(MockStream {
            is_reset: true,
            unread: b"response1".to_vec(),
            ..MockStream::default()
        });
        write_and_flush(&stream, b"request");
        stream.flush(&mut cx());
        assert!(matches!(read_available(&stream), Poll::Ready(Ok(9))));
        let error = read_available(&stream).map_err(|error| error.kind());
        assert_eq!(error, Poll::Ready(Err(io::ErrorKind::ConnectionReset)));
    }

    proptest! {
        #[test]
        fn coalesced_bytes_are_complete_and_in_order(
            writes in prop::collection::vec((1..3 * MAX_COPIED_BYTES, any::<bool>()), 1..40),
            write_limits in prop::collection::vec(0..2 * MAX_COPIED_BYTES, 0..80),
        ) {
            let stream = WriteCoalescer::new(MockStream { write_limits: write_limits.into(), ..MockStream::default() });
            let mut expected = Vec::new();
            for (bytes, should_flush) in writes {
                let mut bytes_to_write: Vec<u8> = (0..bytes).map(|at| (expected.len() + at) as u8).collect();
                while !bytes_to_write.is_empty() {
                    let taken = write_and_flush(&stream, &bytes_to_write);
                    expected.extend(bytes_to_write.drain(..taken));
                }
                prop_assert!(stream.0.borrow().buffer.len() <= MAX_BUFFERED_BYTES);
                if should_flush {
                    stream.flush(&mut cx());
                }
            }
            while stream.0.borrow().is_unflushed {
                stream.flush(&mut cx());
            }
            stream.with_stream(|inner| assert!(inner.writes.concat() == expected));
        }
    }
}

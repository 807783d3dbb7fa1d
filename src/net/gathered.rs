//! Writes that are gathered for as long as their writer has more to say.
//!
//! h2 hands every DATA frame of more than some hundred bytes to its stream by itself, and flushes it:
//! of thirty small answers on one connection each would be a record of TLS and a system call of its
//! own. Here they are kept until the connection has been polled, and written as one.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Gathered at most: about what a stream takes at once.
const MOST_BYTES: usize = 64 * 1024;

/// Writes of so much are not worth the copy.
const LARGE_BYTES: usize = 8 * 1024;

thread_local! {
    /// A buffer that nobody uses: connections at rest own none.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A stream whose writes and flushes wait for [`Self::pour`]. Its clones are the same stream.
#[derive(Debug)]
pub struct Gathered<S>(Rc<RefCell<Inner<S>>>);

#[derive(Debug)]
struct Inner<S> {
    stream: S,
    buffer: Vec<u8>,
    /// How much of the buffer is written.
    written: usize,
    /// Something was written since the stream was last flushed.
    is_unflushed: bool,
    /// Met by pouring, and not told to the writer yet.
    failed: Option<io::Error>,
}

impl<S> Clone for Gathered<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S> Gathered<S> {
    /// Gathers what is written to `stream`.
    #[must_use]
    pub fn new(stream: S) -> Self {
        let inner =
            Inner { stream, buffer: Vec::new(), written: 0, is_unflushed: false, failed: None };
        Self(Rc::new(RefCell::new(inner)))
    }

    /// Looks at the stream itself.
    pub fn with<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.0.borrow().stream)
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Writes what was gathered, and flushes the stream; to be called whenever its writer has been
    /// polled. What the stream does not take yet is written when it wakes whoever polls both. The
    /// writer hears of an error when it next writes, or has read all that there is.
    pub fn pour(&self, cx: &mut Context<'_>) {
        let inner = &mut *self.0.borrow_mut();
        if !inner.is_unflushed || inner.failed.is_some() {
            return;
        }
        if let Poll::Ready(Err(error)) = inner.poll_pour(cx) {
            inner.failed = Some(error);
            cx.waker().wake_by_ref();
        }
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn poll_pour(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.is_unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Writes what was gathered.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            let rest = &self.buffer[self.written..];
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        self.written = 0;
        if self.buffer.capacity() > 0 {
            self.buffer.clear();
            SPARE.set(std::mem::take(&mut self.buffer));
        }
        Poll::Ready(Ok(()))
    }

    /// Keeps `parts`, of `bytes` in all, and says so; or has them written at once.
    fn poll_gather(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        bytes: usize,
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        self.is_unflushed = true;
        if bytes >= LARGE_BYTES || self.buffer.len() + bytes > MOST_BYTES {
            ready!(self.poll_empty(cx))?;
        }
        if bytes >= LARGE_BYTES {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        }
        if self.buffer.capacity() == 0 {
            self.buffer = SPARE.take();
        }
        parts.iter().for_each(|part| self.buffer.extend_from_slice(part));
        Poll::Ready(Ok(bytes))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        let read = Pin::new(&mut inner.stream).poll_read(cx, buf);
        match inner.failed.take_if(|_| read.is_pending()) {
            Some(error) => Poll::Ready(Err(error)),
            None => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_gather(cx, &[IoSlice::new(bytes)], bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = parts.iter().map(|part| part.len()).sum();
        self.0.borrow_mut().poll_gather(cx, parts, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_pour(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

pin_project! {
    /// Somebody who writes to a gathered stream: what it wrote is poured out each time that it has
    /// been polled.
    pub struct Poured<F, S> {
        #[pin]
        writer: F,
        stream: Gathered<S>,
    }
}

impl<F, S> Poured<F, S> {
    /// Runs `writer`, who writes to `stream`.
    pub fn new(writer: F, stream: Gathered<S>) -> Self {
        Self { writer, stream }
    }

    /// Who writes.
    pub fn writer(self: Pin<&mut Self>) -> Pin<&mut F> {
        self.project().writer
    }
}

impl<F: Future, S: AsyncWrite + Unpin> Future for Poured<F, S> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let poured = self.project();
        let ended = poured.writer.poll(cx);
        poured.stream.pour(cx);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::VecDeque;
    use std::task::Waker;

    use proptest::prelude::*;

    /// Takes as many bytes a write as it is told, in turn; 0 is not now, and without a word all.
    #[derive(Default)]
    struct Stream {
        takes: VecDeque<usize>,
        writes: Vec<Vec<u8>>,
        flushes: usize,
        breaks: bool,
        unread: Vec<u8>,
    }

    impl AsyncRead for Stream {
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

    impl AsyncWrite for Stream {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.breaks {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            match self.takes.pop_front().unwrap_or(usize::MAX).min(bytes.len()) {
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

    /// Writes and flushes, as h2 does with each frame; says how much was taken.
    fn say(stream: &Gathered<Stream>, bytes: &[u8]) -> usize {
        let mut stream = stream.clone();
        let Poll::Ready(written) = Pin::new(&mut stream).poll_write(&mut cx(), bytes) else {
            return 0;
        };
        assert!(Pin::new(&mut stream).poll_flush(&mut cx()).is_ready());
        written.expect("written")
    }

    fn read(stream: &Gathered<Stream>) -> Poll<io::Result<usize>> {
        let mut space = [0; 64];
        let mut buf = ReadBuf::new(&mut space);
        let read = Pin::new(&mut stream.clone()).poll_read(&mut cx(), &mut buf);
        read.map_ok(|()| buf.filled().len())
    }

    #[test]
    fn what_is_said_in_one_turn_is_one_write() {
        let stream = Gathered::new(Stream::default());
        for word in ["who ", "says ", "much"] {
            assert_eq!(say(&stream, word.as_bytes()), word.len());
        }
        stream.with(|inner| assert!(inner.writes.is_empty()));
        stream.pour(&mut cx());
        stream.with(|inner| assert_eq!(inner.writes, [b"who says much"]));
        assert_eq!(stream.0.borrow().buffer.capacity(), 0, "at rest");
        // Without anything new the stream is left alone.
        stream.pour(&mut cx());
        stream.with(|inner| assert_eq!((inner.writes.len(), inner.flushes), (1, 1)));
    }

    #[test]
    fn much_is_not_copied() {
        let stream = Gathered::new(Stream::default());
        say(&stream, b"head");
        assert_eq!(say(&stream, &[7; LARGE_BYTES]), LARGE_BYTES);
        stream.with(|inner| assert_eq!(inner.writes, [b"head".to_vec(), vec![7; LARGE_BYTES]]));
    }

    #[test]
    fn an_error_is_heard_after_what_was_read_before() {
        let stream = Gathered::new(Stream {
            breaks: true,
            unread: b"an answer".to_vec(),
            ..Stream::default()
        });
        say(&stream, b"a question");
        stream.pour(&mut cx());
        assert!(matches!(read(&stream), Poll::Ready(Ok(9))));
        let error = read(&stream).map_err(|error| error.kind());
        assert_eq!(error, Poll::Ready(Err(io::ErrorKind::ConnectionReset)));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_out_of_order(
            words in prop::collection::vec((1..3 * LARGE_BYTES, any::<bool>()), 1..40),
            takes in prop::collection::vec(0..2 * LARGE_BYTES, 0..80),
        ) {
            let stream = Gathered::new(Stream { takes: takes.into(), ..Stream::default() });
            let mut said = Vec::new();
            for (bytes, pours) in words {
                let mut word: Vec<u8> = (0..bytes).map(|at| (said.len() + at) as u8).collect();
                while !word.is_empty() {
                    let taken = say(&stream, &word);
                    said.extend(word.drain(..taken));
                }
                prop_assert!(stream.0.borrow().buffer.len() <= MOST_BYTES);
                if pours {
                    stream.pour(&mut cx());
                }
            }
            while stream.0.borrow().is_unflushed {
                stream.pour(&mut cx());
            }
            stream.with(|inner| assert!(inner.writes.concat() == said));
        }
    }
}

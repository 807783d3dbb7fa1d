//! Standard output whose reader may go away, as in `gapless check gapless.toml | head -1`.

use std::io::{self, ErrorKind, Write};

/// Discards what is written after the reader has gone: the command goes on, and keeps its exit
/// code.
#[derive(Debug)]
pub(super) struct ClosableOutput<W> {
    writer: W,
    is_closed: bool,
}

impl<W: Write> ClosableOutput<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, is_closed: false }
    }

    /// Runs `write` unless the reader has gone; `closed` is the result if it goes.
    fn write_unless_closed<T>(
        &mut self,
        closed: T,
        write: impl FnOnce(&mut W) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.is_closed {
            return Ok(closed);
        }
        match write(&mut self.writer) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(closed)
            }
            result => result,
        }
    }
}

impl<W: Write> Write for ClosableOutput<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_unless_closed(bytes.len(), |writer| writer.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_unless_closed((), Write::flush)
    }
}

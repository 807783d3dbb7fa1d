//! The socket between a process and its successor during an upgrade: messages, and descriptors of
//! other sockets (`SCM_RIGHTS`, unix(7)).
//!
//! The successor inherits its end as standard input, so that no descriptor number has to be passed.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Descriptors in one message; the kernel accepts 253.
const MAX_DESCRIPTORS_PER_MESSAGE: usize = 64;

/// Bytes of one message, at most: the state of a hundred thousand endpoints takes a tenth of it.
const MAX_MESSAGE_BYTES: u32 = 256 * 1024 * 1024;

/// Bytes of one read.
const READ_BYTES: usize = 16 * 1024;

/// One end of the socket. All sends and receives fail after the deadline.
#[derive(Debug)]
pub struct HandoverSocket {
    stream: UnixStream,
    deadline: Instant,
}

impl HandoverSocket {
    /// Both ends; the second is for a child's standard input.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub fn pair(deadline: Instant) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self { stream: ours, deadline }, theirs.into()))
    }

    /// The end that is this process's standard input, which becomes `/dev/null`.
    ///
    /// # Errors
    /// If standard input is not such a socket.
    pub fn from_stdin(deadline: Instant) -> io::Result<Self> {
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        stream.peer_addr()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Self { stream, deadline })
    }

    /// Sets the deadline of later sends and receives.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// A handle that aborts, from another thread, what waits at this end.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub fn shutdown_handle(&self) -> io::Result<HandoverShutdown> {
        Ok(HandoverShutdown(self.stream.try_clone()?))
    }

    /// Sends one message.
    ///
    /// # Errors
    /// If the peer has closed its end or does not read before the deadline.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let length =
            u32::try_from(message.len()).ok().filter(|&length| length <= MAX_MESSAGE_BYTES);
        let length =
            length.ok_or_else(|| io::Error::other("the message exceeds the handover limit"))?;
        self.write_all(&length.to_be_bytes())?;
        self.write_all(message)
    }

    /// Waits for one message.
    ///
    /// # Errors
    /// [`ErrorKind::UnexpectedEof`] if the peer has closed its end, [`ErrorKind::TimedOut`] after
    /// the deadline.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > MAX_MESSAGE_BYTES {
            return Err(ErrorKind::InvalidData.into());
        }
        // The buffer grows with the bytes received, and not with the announced length.
        let mut message = Vec::new();
        let mut chunk = [0; READ_BYTES];
        let mut remaining_bytes = length as usize;
        while remaining_bytes > 0 {
            let chunk = &mut chunk[..remaining_bytes.min(READ_BYTES)];
            self.read_exact(chunk)?;
            message.extend_from_slice(chunk);
            remaining_bytes -= chunk.len();
        }
        Ok(message)
    }

    /// Sends descriptors, which both processes then have.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_descriptors(&mut self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        for chunk in descriptors.chunks(MAX_DESCRIPTORS_PER_MESSAGE) {
            self.stream.set_write_timeout(Some(self.remaining_time()?))?;
            let mut space = [MaybeUninit::uninit();
                rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS_PER_MESSAGE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(chunk)) {
                return Err(ErrorKind::OutOfMemory.into());
            }
            let byte = [IoSlice::new(b"+")];
            retry_on_intr(|| sendmsg(&self.stream, &byte, &mut control, SendFlags::NOSIGNAL))
                .map_err(as_timed_out)?;
        }
        Ok(())
    }

    /// Receives `count` descriptors.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn receive_descriptors(&mut self, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut descriptors = Vec::new();
        while descriptors.len() < count {
            self.stream.set_read_timeout(Some(self.remaining_time()?))?;
            let mut space = [MaybeUninit::uninit();
                rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS_PER_MESSAGE))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let read = retry_on_intr(|| {
                let into = &mut [IoSliceMut::new(&mut byte)];
                recvmsg(&self.stream, into, &mut control, RecvFlags::CMSG_CLOEXEC)
            })
            .map_err(as_timed_out)?;
            if read.bytes == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let before = descriptors.len();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    descriptors.extend(received);
                }
            }
            if descriptors.len() == before {
                // The kernel dropped them: this process may open no more descriptors.
                return Err(io::Error::other("descriptors were dropped in transit"));
            }
        }
        Ok(descriptors)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(self.remaining_time()?))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(as_timed_out(error)),
            }
        }
        Ok(())
    }

    fn read_exact(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_read_timeout(Some(self.remaining_time()?))?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => bytes = &mut bytes[read..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(as_timed_out(error)),
            }
        }
        Ok(())
    }

    fn remaining_time(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// A handle that aborts the sends and receives of a [`HandoverSocket`].
#[derive(Debug)]
pub struct HandoverShutdown(UnixStream);

impl HandoverShutdown {
    /// Closes the socket in both directions.
    pub fn shutdown(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Maps the kernel's EAGAIN of a socket timeout to [`ErrorKind::TimedOut`].
fn as_timed_out(error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::TcpListener;
    use std::thread;

    fn test_deadline() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn socket_pair() -> (HandoverSocket, HandoverSocket) {
        let (ours, theirs) = HandoverSocket::pair(test_deadline()).expect("a pair");
        (ours, HandoverSocket { stream: theirs.into(), deadline: test_deadline() })
    }

    #[test]
    fn messages_and_descriptors_arrive_in_order() {
        let (mut old, mut new) = socket_pair();
        let sockets: Vec<TcpListener> =
            (0..150).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let large = vec![7; 1_000_000];
        let sent = large.clone();
        let addresses: Vec<_> =
            sockets.iter().map(|one| one.local_addr().expect("bound")).collect();
        let sender = thread::spawn(move || {
            old.send(b"").expect("sent");
            old.send(&sent).expect("sent");
            let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            old.send_descriptors(&descriptors).expect("sent");
            old.send(b"end").expect("sent");
        });
        assert_eq!(new.receive().expect("a message"), b"");
        assert_eq!(new.receive().expect("a message"), large);
        let descriptors = new.receive_descriptors(addresses.len()).expect("descriptors");
        assert_eq!(new.receive().expect("a message"), b"end");
        sender.join().expect("no panic");
        let address = |one| TcpListener::from(one).local_addr().expect("bound");
        let arrived: Vec<_> = descriptors.into_iter().map(address).collect();
        assert_eq!(arrived, addresses);
    }

    #[test]
    fn closed_peer_and_silent_peer_give_distinct_errors() {
        let (mut old, new) = socket_pair();
        old.set_deadline(Instant::now() + Duration::from_millis(20));
        assert_eq!(old.receive().expect_err("silence").kind(), ErrorKind::TimedOut);
        old.set_deadline(test_deadline());
        drop(new);
        assert_eq!(old.receive().expect_err("an end").kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn shutdown_handle_ends_pending_receive() {
        let (mut old, _new) = socket_pair();
        let handle = old.shutdown_handle().expect("a handle");
        let receiver = thread::spawn(move || old.receive());
        handle.shutdown();
        let ended = receiver.join().expect("no panic");
        assert_eq!(ended.expect_err("an end").kind(), ErrorKind::UnexpectedEof);
    }
}

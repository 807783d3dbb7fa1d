//! A socket between a process and the one that takes over from it: letters, and descriptors of other
//! sockets (`SCM_RIGHTS`, unix(7)).
//!
//! The successor gets its end as standard input: what a child inherits there need not be adopted by
//! number.

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

/// Descriptors in one message; the kernel takes 253.
const MAX_DESCRIPTORS_PER_MESSAGE: usize = 64;

/// Bytes of a letter, at most: a hundred thousand endpoints are a tenth of it.
const MAX_MESSAGE_BYTES: u32 = 256 * 1024 * 1024;

/// One end. All that is sent and received must be so by its deadline.
#[derive(Debug)]
pub struct HandoverSocket {
    stream: UnixStream,
    deadline: Instant,
}

impl HandoverSocket {
    /// Both ends; the second is for a child's standard input.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn pair(deadline: Instant) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self { stream: ours, deadline }, theirs.into()))
    }

    /// The end that is this process's standard input, which is `/dev/null` from now on.
    ///
    /// # Errors
    /// If standard input is no such socket.
    pub fn from_stdin(deadline: Instant) -> io::Result<Self> {
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        stream.peer_addr()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Self { stream, deadline })
    }

    /// Has what follows a deadline of its own.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Another handle to this end: to break off from elsewhere what waits here.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn shutdown_handle(&self) -> io::Result<HandoverShutdown> {
        Ok(HandoverShutdown(self.stream.try_clone()?))
    }

    /// Sends a letter.
    ///
    /// # Errors
    /// If the other end is gone, or does not read in time.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let length =
            u32::try_from(message.len()).ok().filter(|&length| length <= MAX_MESSAGE_BYTES);
        let length = length.ok_or_else(|| io::Error::other("too much to be handed over"))?;
        self.write_all(&length.to_be_bytes())?;
        self.write_all(message)
    }

    /// Waits for a letter.
    ///
    /// # Errors
    /// [`ErrorKind::UnexpectedEof`] if the other end is gone, [`ErrorKind::TimedOut`] if it is too
    /// late.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > MAX_MESSAGE_BYTES {
            return Err(ErrorKind::InvalidData.into());
        }
        // It grows with what comes, and not with what is announced.
        let mut message = Vec::new();
        let mut chunk = [0; 16 * 1024];
        let mut remaining_bytes = length as usize;
        while remaining_bytes > 0 {
            let chunk = &mut chunk[..remaining_bytes.min(16 * 1024)];
            self.read_exact(chunk)?;
            message.extend_from_slice(chunk);
            remaining_bytes -= chunk.len();
        }
        Ok(message)
    }

    /// Sends descriptors; both processes have them then.
    ///
    /// # Errors
    /// As [`Handover::send`].
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

    /// Receives so many descriptors.
    ///
    /// # Errors
    /// As [`Handover::receive`].
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
                if let RecvAncillaryMessage::ScmRights(some) = message {
                    descriptors.extend(some);
                }
            }
            if descriptors.len() == before {
                // This process may open no more.
                return Err(io::Error::other("descriptors were lost on the way"));
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

/// What ends the wait at the other handle.
#[derive(Debug)]
pub struct HandoverShutdown(UnixStream);

impl HandoverShutdown {
    /// Nothing more is sent or received.
    pub fn shutdown(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A socket's timeout has the words of one that would block.
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
        assert_eq!(new.receive().expect("a letter"), b"");
        assert_eq!(new.receive().expect("a letter"), large);
        let descriptors = new.receive_descriptors(addresses.len()).expect("descriptors");
        assert_eq!(new.receive().expect("a letter"), b"end");
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

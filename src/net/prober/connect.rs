//! Opens a connection, more than once if the first opening hears nothing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::again::Race;
use super::{Question, is_ours};

/// Which opening of a connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    First,
    Further,
}

/// The first connection that is accepted, or the first definite failure.
pub(super) async fn connect(question: &Question<'_>) -> io::Result<TcpStream> {
    let began = Instant::now();
    let mut marks = question.openings.iter().copied();
    let mut mark = marks.next();
    let mut race = Race::new();
    race.add(open(question.target, Opening::First));
    loop {
        let next = began + mark.unwrap_or(Duration::ZERO);
        tokio::select! {
            biased;
            (opening, result) = race.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) if opening == Opening::Further && is_ours(&error) => {}
                Err(error) => return Err(error),
            },
            () = tokio::time::sleep_until(next), if mark.is_some() => {
                mark = marks.next();
                if let Some(taken) = question.spare.take() {
                    race.add(taken.during(open(question.target, Opening::Further)));
                }
            }
        }
    }
}

async fn open(target: SocketAddr, opening: Opening) -> (Opening, io::Result<TcpStream>) {
    let stream = TcpStream::connect(target).await;
    if let Ok(stream) = &stream {
        // A probe leaves no connection waiting behind, on either side, and no small write waits.
        let _ = stream.set_zero_linger();
        let _ = stream.set_nodelay(true);
    }
    (opening, stream)
}

//! Opens a connection, more than once if the first opening hears nothing.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::net::upstream::proxy_header;

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
    race.add(open(question, Opening::First));
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
                    race.add(taken.during(open(question, Opening::Further)));
                }
            }
        }
    }
}

async fn open(question: &Question<'_>, opening: Opening) -> (Opening, io::Result<TcpStream>) {
    (opening, begin(question).await)
}

async fn begin(question: &Question<'_>) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(question.target).await?;
    // A probe leaves no connection waiting behind, on either side, and no small write waits.
    let _ = stream.set_zero_linger();
    let _ = stream.set_nodelay(true);
    if let Some(version) = question.spec.proxy_protocol {
        stream.write_all(&proxy_header::local(version)).await?;
    }
    Ok(stream)
}

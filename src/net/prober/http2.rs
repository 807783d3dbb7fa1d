//! One exchange over HTTP/2.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Connection, SendRequest};
use http::header::USER_AGENT as USER_AGENT_FIELD;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use tokio_util::either::Either;

use crate::logic::outcome::{Failure, Layer, Reason};
use crate::logic::probe::HttpProbe;

use super::expect::Judge;
use super::kept::Line;
use super::{Ended, Passed, Progress, Question, Stream, USER_AGENT};

/// Largest head that a probe takes.
const HEAD_BYTES: u32 = 64 * 1024;

/// What may be under way to us before we have taken it, in bytes.
const WINDOW_BYTES: u32 = 64 * 1024;

/// The protocol's name in a handshake (RFC 9113 3.2).
const ALPN: &[u8] = b"h2";

/// A connection on which requests can be sent. It makes progress only while one is under way.
#[derive(Debug)]
pub(super) struct Session {
    send: SendRequest<Bytes>,
    connection: Connection<Stream, Bytes>,
}

/// A final response, whose body is still to be read.
pub(super) struct Received {
    pub(super) head: Response<()>,
    pub(super) body: RecvStream,
}

impl Session {
    /// Begins HTTP/2 on a new connection.
    pub(super) async fn open(progress: &Progress, stream: Stream) -> Result<Self, Ended> {
        if let Either::Right(tls) = &stream
            && tls.get_ref().1.alpn_protocol() != Some(ALPN)
        {
            let failure = Failure { layer: Layer::Tls, reason: Reason::Handshake };
            return Err(Ended::Failed(failure));
        }
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .max_header_list_size(HEAD_BYTES)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let opened = builder.handshake(stream).await;
        let (send, connection) = opened.map_err(|error| ended(progress, &error))?;
        Ok(Self { send, connection })
    }

    /// Runs `work` and the connection beside it, without which nothing would move.
    async fn drive<T>(
        &mut self,
        progress: &Progress,
        work: impl Future<Output = Result<T, h2::Error>>,
    ) -> Result<T, Ended> {
        let mut work = pin!(work);
        let connection = &mut self.connection;
        poll_fn(|cx| {
            let over = Pin::new(&mut *connection).poll(cx);
            if let Poll::Ready(result) = work.as_mut().poll(cx) {
                return Poll::Ready(result.map_err(|error| ended(progress, &error)));
            }
            match over {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) => Poll::Ready(Err(progress.failed(Reason::Closed))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(ended(progress, &error))),
            }
        })
        .await
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(
        &mut self,
        progress: &Progress,
        request: Request<()>,
        body: Option<Bytes>,
    ) -> Result<Received, Ended> {
        let send = self.send.clone();
        let exchange = async {
            let mut send = send.ready().await?;
            let (response, mut stream) = send.send_request(request, body.is_none())?;
            if let Some(body) = body {
                stream.send_data(body, true)?;
            }
            response.await
        };
        let response = self.drive(progress, exchange).await?;
        progress.is_heard.set(true);
        let (head, body) = response.into_parts();
        Ok(Received { head: Response::from_parts(head, ()), body })
    }

    /// The next piece of a body; `None` at its end.
    pub(super) async fn piece(
        &mut self,
        progress: &Progress,
        body: &mut RecvStream,
    ) -> Result<Option<Bytes>, Ended> {
        let piece = async {
            let Some(piece) = body.data().await.transpose()? else { return Ok(None) };
            body.flow_control().release_capacity(piece.len())?;
            Ok(Some(piece))
        };
        self.drive(progress, piece).await
    }

    /// What follows a body.
    pub(super) async fn trailers(
        &mut self,
        progress: &Progress,
        body: &mut RecvStream,
    ) -> Result<Option<HeaderMap>, Ended> {
        self.drive(progress, body.trailers()).await
    }
}

fn ended(progress: &Progress, error: &h2::Error) -> Ended {
    if let Some(error) = error.get_io() {
        return progress.broken(error);
    }
    progress.failed(if error.is_go_away() && error.is_remote() {
        Reason::Closed
    } else if error.is_reset() && error.is_remote() {
        Reason::Reset
    } else {
        Reason::Malformed
    })
}

/// A request to the endpoint. The configuration has checked its parts, so that a request that cannot
/// be made is our own doing.
pub(super) fn request(
    question: &Question<'_>,
    method: &http::Method,
    authority: Option<&str>,
    path: &str,
    headers: &HeaderMap,
) -> Result<Request<()>, Ended> {
    let scheme = if question.spec.tls.is_some() { "https" } else { "http" };
    let address = question.address.to_string();
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority.unwrap_or(&address))
        .path_and_query(path)
        .build()
        .map_err(|_| Ended::Ours)?;
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers.clone();
    let agent = HeaderValue::from_static(USER_AGENT);
    request.headers_mut().entry(USER_AGENT_FIELD).or_insert(agent);
    Ok(request)
}

pub(super) async fn ask(
    question: &Question<'_>,
    probe: &HttpProbe,
    progress: &Progress,
    mut session: Box<Session>,
) -> Passed {
    let spec = question.spec;
    let host = probe.host.as_deref();
    let request = request(question, &probe.method, host, &probe.path, &probe.headers)?;
    let body = probe.body.clone().map(Bytes::from);
    let Received { head, mut body } = session.send(progress, request, body).await?;
    let mut judge = Judge::new(probe, spec.degraded.as_ref(), spec.read_bytes);
    judge.head(head.status(), head.headers()).map_err(|reason| progress.failed(reason))?;
    if judge.wants_body() {
        while let Some(piece) = session.piece(progress, &mut body).await? {
            if !judge.take(&piece) {
                break;
            }
        }
    }
    let is_degraded = judge.end().map_err(|reason| progress.failed(reason))?;
    // What is left of the body is refused when the stream is dropped; the connection stays.
    Ok((is_degraded, Some(Line::H2(session))))
}

//! What gRPC expects of a proxy: answers of its own that a client understands, and an end at the
//! client's deadline (gRPC over HTTP/2, `PROTOCOL-HTTP2.md`).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::net::upstream::ResponseError;

use super::body::ProxyBody;
use super::fault::Reason;

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The deadline of a call, and whether its answer can still be ended in order when that comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    deadline: Option<Instant>,
    ends_in_trailers: bool,
}

impl Call {
    /// A call that arrives now; `None` if the request is none.
    pub(super) fn of(version: Version, headers: &HeaderMap) -> Option<Self> {
        if !is_call(headers) {
            return None;
        }
        let deadline = timeout(headers).map(|timeout| Instant::now() + timeout);
        Some(Self { deadline, ends_in_trailers: version == Version::HTTP_2 })
    }

    /// The answer as a client of gRPC understands it.
    pub(super) fn answer(self, response: Response<ProxyBody>) -> Response<ProxyBody> {
        if let Some(&reason) = response.extensions().get::<Reason>() {
            return refusal(reason, response);
        }
        match self.deadline {
            Some(deadline) if self.ends_in_trailers => {
                response.map(|body| ProxyBody::Until(Box::new(Until::new(body, deadline))))
            }
            _ => response,
        }
    }
}

/// How long the client waits for the whole call, if it says so.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT).filter(|_| is_call(headers))?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount = digits.parse::<u64>().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3_600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// `application/grpc`, with or without the format of its messages. gRPC-Web is another protocol.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..));
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// Our own answer: a head that is its trailers as well.
fn refusal(reason: Reason, response: Response<ProxyBody>) -> Response<ProxyBody> {
    let (mut parts, _) = response.into_parts();
    parts.status = StatusCode::OK;
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    parts.headers.extend(trailers(reason));
    Response::from_parts(parts, ProxyBody::whole(Bytes::new()))
}

fn trailers(reason: Reason) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from(status(reason)));
    let message = encoded(&format!("gapless: {}", reason.as_str()));
    if let Ok(message) = HeaderValue::try_from(message) {
        trailers.insert(MESSAGE, message);
    }
    trailers
}

/// The status of the call that a reason gives.
fn status(reason: Reason) -> u16 {
    match reason {
        Reason::BadRequest | Reason::BadPath | Reason::UnderscoreHeader => 3,
        Reason::BodyTimeout
        | Reason::ConnectTimeout
        | Reason::ResponseTimeout
        | Reason::TotalTimeout
        | Reason::DeadlineExceeded => 4,
        Reason::BodyTooLarge
        | Reason::HeadTooLarge
        | Reason::LocalLimit
        | Reason::EndpointLimit
        | Reason::PoolLimit
        | Reason::PendingLimit
        | Reason::RateLimited => 8,
        Reason::UnknownCoding
        | Reason::MethodRefused
        | Reason::NoRoute
        | Reason::UpgradeRefused => 12,
        Reason::BadResponse => 13,
        Reason::NoEndpoint
        | Reason::Drained
        | Reason::ConnectFailed
        | Reason::Reset
        | Reason::EndpointDown
        | Reason::Overload => 14,
    }
}

/// `text` with everything but printable ASCII, and the per cent sign, written as per cent and two
/// digits.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A body that ends at a deadline.
pub struct Until {
    body: ProxyBody,
    clock: Pin<Box<Sleep>>,
}

impl Until {
    fn new(body: ProxyBody, deadline: Instant) -> Self {
        Self { body, clock: Box::pin(sleep_until(deadline)) }
    }

    /// The next frame; at the deadline the one that says so, after which there are none.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(self.clock.as_mut().poll(cx));
        // The endpoint hears that nobody waits any more.
        self.body = ProxyBody::whole(Bytes::new());
        Poll::Ready(Some(Ok(Frame::trailers(trailers(Reason::DeadlineExceeded)))))
    }

    pub(super) fn body(&self) -> &ProxyBody {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field =
            |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        fields.iter().map(field).collect()
    }

    #[test]
    fn calls_are_known_by_their_type() {
        let is = |kind| is_call(&headers(&[("content-type", kind)]));
        assert!(is("application/grpc") && is("application/grpc+proto"));
        assert!(is("application/grpc; charset=utf-8"));
        assert!(!is("application/grpc-web") && !is("application/json") && !is(""));
        assert!(!is_call(&HeaderMap::new()));
    }

    #[test]
    fn deadlines_have_units() {
        let of = |text| {
            timeout(&headers(&[("content-type", "application/grpc"), ("grpc-timeout", text)]))
        };
        assert_eq!(of("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(of("3M"), Some(Duration::from_secs(180)));
        assert_eq!(of("1S"), Some(Duration::from_secs(1)));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("7u"), Some(Duration::from_micros(7)));
        assert_eq!(of("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "S", "1", "1s", "-1S", "123456789S", "1.5S"] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
        assert_eq!(timeout(&headers(&[("grpc-timeout", "1S")])), None, "no call");
    }

    #[test]
    fn refusals_are_heads_that_say_it_all() {
        let call = Call { deadline: None, ends_in_trailers: true };
        for reason in Reason::ALL {
            let answer = call.answer(reason.response());
            let field = |name: &str| answer.headers()[name].to_str().expect("text");
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(field("content-type"), "application/grpc");
            assert_eq!(field("x-gapless-reason"), reason.as_str());
            assert_ne!(field("grpc-status"), "0");
            assert_eq!(field("grpc-message"), format!("gapless: {}", reason.as_str()));
            assert!(answer.body().is_end_stream());
        }
    }

    #[test]
    fn messages_are_printable() {
        assert_eq!(encoded("50% of\nä"), "50%25 of%0A%C3%A4");
    }
}

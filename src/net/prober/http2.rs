//! An HTTP check over HTTP/2.

use bytes::Bytes;
use http::header::USER_AGENT as USER_AGENT_FIELD;
use http::{HeaderMap, HeaderValue, Request, Uri};

use crate::logic::probing::probe::HttpProbe;

use super::connection::{CheckResult, PassedCheck, ProbeTransport};
use super::context::{ProbeContext, USER_AGENT};
use super::h2_session::{H2ProbeResponse, H2ProbeSession};
use super::progress::{AttemptFailure, ProbeProgress};
use super::response_check::ResponseCheck;

/// A request to the endpoint. The configuration has validated its parts: a request that cannot
/// be built is a failure of this process.
pub(super) fn build_request(
    context: &ProbeContext<'_>,
    method: &http::Method,
    authority: Option<&str>,
    path: &str,
    headers: &HeaderMap,
) -> Result<Request<()>, AttemptFailure> {
    let scheme = if context.spec.tls.is_some() { "https" } else { "http" };
    let address = context.address.to_string();
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority.unwrap_or(&address))
        .path_and_query(path)
        .build()
        .map_err(|_| AttemptFailure::Local)?;
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers.clone();
    let agent = HeaderValue::from_static(USER_AGENT);
    request.headers_mut().entry(USER_AGENT_FIELD).or_insert(agent);
    Ok(request)
}

pub(super) async fn run_probe(
    context: &ProbeContext<'_>,
    probe: &HttpProbe,
    progress: &ProbeProgress,
    mut session: Box<H2ProbeSession>,
) -> CheckResult {
    let spec = context.spec;
    let host = probe.host.as_deref();
    let request = build_request(context, &probe.method, host, &probe.path, &probe.headers)?;
    let body = probe.body.clone().map(Bytes::from);
    let H2ProbeResponse { head, mut body } = session.send_request(progress, request, body).await?;
    let mut check = ResponseCheck::new(probe, spec.degraded.as_ref(), spec.max_body_bytes);
    check.check_head(head.status(), head.headers()).map_err(|reason| progress.failure(reason))?;
    if check.should_read_body() {
        while let Some(chunk) = session.next_chunk(progress, &mut body).await? {
            if !check.push_body(&chunk) {
                break;
            }
        }
    }
    let is_degraded = check.finish().map_err(|reason| progress.failure(reason))?;
    // The rest of the body is refused by a stream reset; the connection stays open.
    Ok(PassedCheck { is_degraded, transport: Some(ProbeTransport::H2(session)) })
}

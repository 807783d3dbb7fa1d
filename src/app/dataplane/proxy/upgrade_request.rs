//! Requests to go on in another protocol (RFC 9110 7.8): WebSocket only.
//!
//! The tunnel opens only after the endpoint's 101 with the same protocol. An extended CONNECT of an
//! HTTP/2 client (RFC 8441) becomes an HTTP/1.1 upgrade here; the HTTP/2 server turns the 101 back
//! into a 200.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use crate::net::h1::ConnectionOptions;
use crate::net::websocket::WebSocketKey;

/// The only protocol that is passed on. Others, `h2c` above all, would smuggle requests past us.
pub(super) const PROTOCOL: &str = "websocket";

/// A client's wish to go on in another protocol.
pub(super) struct UpgradeRequest {
    pub(super) on_upgrade: OnUpgrade,
    /// What the endpoint is asked with, where the client cannot: then nothing else will do either.
    key: Option<WebSocketKey>,
}

impl UpgradeRequest {
    /// Whether any other good answer would be taken for a tunnel.
    pub(super) fn is_required(&self) -> bool {
        self.key.is_some()
    }

    /// Whether a 101 with these headers grants it. Where the key is the client's, so is the check.
    pub(super) fn is_accepted(&self, headers: &HeaderMap) -> bool {
        self.key.as_ref().is_none_or(|key| key.is_accepted_by(headers))
    }
}

/// A client's wish to go on in another protocol, if it is one that may be granted. Over HTTP/2 the
/// request becomes the upgrade that it stands for, with a key made of `nonce`.
pub(super) fn extract_upgrade(
    request: &mut Request<()>,
    nonce: impl FnOnce() -> u128,
) -> Option<UpgradeRequest> {
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>()?;
    if let Some(protocol) = request.extensions_mut().remove::<Protocol>() {
        return from_extended_connect(request, &protocol, on_upgrade, nonce);
    }
    let mut protocols = request.headers().get_all(UPGRADE).iter();
    let only = protocols.next().filter(|_| protocols.next().is_none())?;
    let is_known = only.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes());
    let is_requested = ConnectionOptions::from_headers(request.headers()).has_option("upgrade");
    let is_eligible = *request.method() == Method::GET && request.version() == Version::HTTP_11;
    (is_known && is_requested && is_eligible).then_some(UpgradeRequest { on_upgrade, key: None })
}

/// RFC 8441 5: the same as a GET, but for what the CONNECT says by itself. Of an unknown protocol it stays
/// a CONNECT, which is refused.
fn from_extended_connect(
    request: &mut Request<()>,
    protocol: &Protocol,
    on_upgrade: OnUpgrade,
    nonce: impl FnOnce() -> u128,
) -> Option<UpgradeRequest> {
    if protocol.as_ref() != PROTOCOL.as_bytes() || *request.method() != Method::CONNECT {
        return None;
    }
    let key = WebSocketKey::new(nonce());
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.remove(SEC_WEBSOCKET_ACCEPT);
    headers.remove(CONTENT_LENGTH);
    headers.insert(SEC_WEBSOCKET_KEY, key.header_value());
    Some(UpgradeRequest { on_upgrade, key: Some(key) })
}

/// The 101 as a client of HTTP/2 is told it: a CONNECT that went well.
pub fn adapt_upgrade_for_h2<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.remove(UPGRADE);
    headers.remove(SEC_WEBSOCKET_ACCEPT);
}

/// The fields of the 101 that are not the endpoint's.
pub(super) fn set_upgrade_headers(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
}

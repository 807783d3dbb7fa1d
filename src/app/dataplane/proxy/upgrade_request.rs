//! Requests to switch to another protocol (RFC 9110 7.8): WebSocket only.
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

/// The only supported protocol. Others, `h2c` above all, would allow request smuggling.
pub(super) const PROTOCOL: &str = "websocket";

/// A client's request to switch to another protocol.
pub(super) struct UpgradeRequest {
    pub(super) on_upgrade: OnUpgrade,
    /// The key sent to the endpoint for an HTTP/2 client, which has none of its own.
    key: Option<WebSocketKey>,
}

impl UpgradeRequest {
    /// Whether the client takes every successful response for a tunnel.
    pub(super) fn is_required(&self) -> bool {
        self.key.is_some()
    }

    /// Whether a 101 with these headers accepts it. A client with its own key checks it itself.
    pub(super) fn is_accepted(&self, headers: &HeaderMap) -> bool {
        self.key.as_ref().is_none_or(|key| key.is_accepted_by(headers))
    }
}

/// The upgrade that the request contains, if it is supported. Turns an extended CONNECT into an
/// HTTP/1.1 upgrade, with a key derived from `nonce`.
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

/// RFC 8441 5: equal to a GET except for what CONNECT implies. With an unknown protocol it remains
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

/// Turns a 101 into the 200 that HTTP/2 uses (RFC 8441 5).
pub fn adapt_upgrade_for_h2<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.remove(UPGRADE);
    headers.remove(SEC_WEBSOCKET_ACCEPT);
}

/// Sets the headers of the 101 that are hop-by-hop.
pub(super) fn set_upgrade_headers(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
}

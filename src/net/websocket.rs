//! The client side of the WebSocket handshake (RFC 6455 4), for a client of HTTP/2, whose own
//! request has none (RFC 8441 5).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use http::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT};

/// The GUID that a server appends to the key (RFC 6455 1.3).
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of `sec-websocket-key`, which the endpoint has to answer with its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketKey(String);

impl WebSocketKey {
    /// The key of a connection. It should be unique, but need not be unpredictable.
    pub fn new(nonce: u128) -> Self {
        Self(encode_base64(&nonce.to_be_bytes()))
    }

    /// The value of `sec-websocket-key`.
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::try_from(self.0.as_str()).unwrap_or(HeaderValue::from_static(""))
    }

    /// Whether a response with these headers accepts this key.
    pub fn is_accepted_by(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        let single = values.next().filter(|_| values.next().is_none());
        single.is_some_and(|value| value.as_bytes() == self.accept_value().as_bytes())
    }

    fn accept_value(&self) -> String {
        let text = format!("{}{ACCEPT_GUID}", self.0);
        encode_base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref())
    }
}

/// Encodes as base64 with padding (RFC 4648 4).
fn encode_base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for position in 0..4 {
            let symbol = ALPHABET[(bits >> (18 - 6 * position) & 63) as usize];
            text.push(if position <= chunk.len() { char::from(symbol) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_6455_example_key_is_accepted() {
        let key = WebSocketKey("dGhlIHNhbXBsZSBub25jZQ==".to_owned());
        assert_eq!(key.accept_value(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut headers = HeaderMap::new();
        assert!(!key.is_accepted_by(&headers));
        headers
            .append(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(key.is_accepted_by(&headers));
        headers
            .append(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!key.is_accepted_by(&headers), "one is enough");
    }

    #[test]
    fn base64_matches_rfc_4648_vectors() {
        let pairs =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in pairs {
            assert_eq!(encode_base64(bytes.as_bytes()), text);
        }
        assert_eq!(WebSocketKey::new(0).header_value(), "AAAAAAAAAAAAAAAAAAAAAA==");
    }
}

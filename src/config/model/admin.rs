//! The listeners for operators and for programs that watch the instance.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::logic::model::server_tls::ServerTls;

/// The listener of the admin API. Outside of loopback it has TLS and a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminConfig {
    /// Port 0 stands for any free port; `None` switches the listener off.
    pub address: Option<SocketAddr>,
    /// TLS settings; `None` means cleartext.
    pub tls: Option<Arc<ServerTls>>,
    /// The token that each request must carry; `None` requires none.
    pub token: Option<AdminToken>,
}

/// The read-only listener for metrics and health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusConfig {
    /// Port 0 stands for any free port; `None` means no listener.
    pub address: Option<SocketAddr>,
}

/// A bearer token of the admin API (RFC 6750); hidden in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(Arc<str>);

impl AdminToken {
    /// The fewest characters: 16 random ones cannot be guessed.
    pub const MIN_BYTES: usize = 16;
    /// The most characters of a token.
    pub const MAX_BYTES: usize = 512;

    /// Checks the alphabet of RFC 6750 2.1 and the length.
    ///
    /// # Errors
    /// What is wrong with the text, without the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        match text.len() {
            0 => Err("is empty".to_owned()),
            _ if !text.bytes().all(is_token_byte) => {
                Err("has characters that no token has (letters, digits and `-._~+/=`)".to_owned())
            }
            length if length < Self::MIN_BYTES => {
                Err(format!("has {length} characters, and needs {} or more", Self::MIN_BYTES))
            }
            length if length > Self::MAX_BYTES => {
                Err(format!("has {length} characters, and {} are the most", Self::MAX_BYTES))
            }
            _ => Ok(Self(text.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_long_plain_and_hidden() {
        let token = AdminToken::parse("0123456789abcdef").expect("long enough");
        assert_eq!(format!("{token:?}"), "a token");
        for (text, reason) in [
            ("", "empty"),
            ("0123456789abcde", "has 15 characters"),
            ("0123456789 abcdef", "characters that no token has"),
            (&"a".repeat(513), "512 are the most"),
        ] {
            let error = AdminToken::parse(text).expect_err("invalid");
            assert!(error.contains(reason) && !error.contains("0123"), "{error}");
        }
    }
}

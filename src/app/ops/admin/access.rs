//! What protects the admin listener: TLS, and the token of its requests.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use rustls::{Error, ServerConfig};

use crate::config::model::{AdminConfig, AdminToken};
use crate::net::inbound::tls;

/// Prepared off the control thread, which swaps it in with a reloaded configuration.
#[derive(Clone, Debug, Default)]
pub struct AdminAccess {
    /// Certificate and settings for TLS handshakes; `None` means cleartext.
    pub tls: Option<Arc<ServerConfig>>,
    /// The token that each request must carry; `None` requires none.
    token: Option<AdminToken>,
}

impl AdminAccess {
    /// Sets up TLS.
    ///
    /// # Errors
    /// If rustls refuses a certificate or key that passed validation.
    pub fn prepare(config: &AdminConfig) -> Result<Self, Error> {
        let tls = config.tls.as_ref().map(|tls| tls::server_config(tls, false)).transpose()?;
        Ok(Self { tls, token: config.token.clone() })
    }

    /// Whether requests need a token. Such a request comes from no web page, whatever its host.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether the request may be served: its only `Authorization` has the token. The time of the
    /// comparison does not depend on where the tokens differ.
    pub fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let mut fields = headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let (Some(field), None) = (fields.next(), fields.next()) else { return false };
        let scheme = b"bearer ";
        let Some((head, given)) = field.split_at_checked(scheme.len()) else { return false };
        let expected = token.as_str().as_bytes();
        head.eq_ignore_ascii_case(scheme)
            && aws_lc_rs::constant_time::verify_slices_are_equal(given, expected).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_field_with_the_whole_token_is_authorized() {
        let token = AdminToken::parse("0123456789abcdef").expect("a token");
        let access = AdminAccess { tls: None, token: Some(token) };
        let is_authorized = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().expect("a value"));
            }
            access.is_authorized(&headers)
        };
        let good = "Bearer 0123456789abcdef";
        assert!(is_authorized(&[good]) && is_authorized(&["bearer 0123456789abcdef"]));
        assert!(!is_authorized(&[]) && !is_authorized(&[good, good]));
        for bad in
            ["Bearer 0123456789abcdeX", "Bearer 0123456789abcde", "Basic 0123456789abcdef", "B"]
        {
            assert!(!is_authorized(&[bad]), "{bad}");
        }
        assert!(AdminAccess::default().is_authorized(&HeaderMap::new()), "no token is needed");
    }
}

//! Settings for new connections of a listener. They are prepared off the control thread, which only
//! swaps them in.

use std::sync::Arc;

use rustls::{Error, ServerConfig};

use crate::config::model::ListenerSpec;
use crate::net::inbound::tls;

/// Settings for new connections of one listener.
#[derive(Debug)]
pub struct ListenerConfig {
    pub listen: ListenerSpec,
    /// Certificates and settings for TLS handshakes.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Prepares the settings of all listeners; loading many keys takes time.
///
/// # Errors
/// If rustls refuses a certificate or key that passed validation.
pub fn prepare_listeners(listen: &[ListenerSpec]) -> Result<Vec<ListenerConfig>, Error> {
    let prepare_one = |listen: &ListenerSpec| {
        let tls = listen.tls.as_ref().map(|tls| tls::server_config(tls, listen.has_http2));
        Ok(ListenerConfig { listen: listen.clone(), tls: tls.transpose()? })
    };
    listen.iter().map(prepare_one).collect()
}

//! How connections through a door are taken: made of the configuration away from control, which
//! only swaps it in.

use std::sync::Arc;

use rustls::{Error, ServerConfig};

use crate::config::model::ListenerSpec;
use crate::net::inbound::tls;

/// How connections through one door are taken.
#[derive(Debug)]
pub struct ListenerConfig {
    /// As it is configured.
    pub listen: ListenerSpec,
    /// What handshakes are made with.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Makes ready what the listeners need. Reading many keys takes a while.
///
/// # Errors
/// When the library refuses what passed the checks.
pub fn prepare_listeners(listen: &[ListenerSpec]) -> Result<Vec<ListenerConfig>, Error> {
    let prepare_one = |listen: &ListenerSpec| {
        let tls = listen.tls.as_ref().map(|tls| tls::server_config(tls, listen.has_http2));
        Ok(ListenerConfig { listen: listen.clone(), tls: tls.transpose()? })
    };
    listen.iter().map(prepare_one).collect()
}

//! How connections through a door are taken: made of the configuration away from control, which
//! only swaps it in.

use std::sync::Arc;

use rustls::{Error, ServerConfig};

use crate::config::model::Listen;
use crate::net::inbound::tls;

/// How connections through one door are taken.
#[derive(Debug)]
pub struct Front {
    /// As it is configured.
    pub listen: Listen,
    /// What handshakes are made with.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Makes ready what the listeners need. Reading many keys takes a while.
///
/// # Errors
/// When the library refuses what passed the checks.
pub fn prepare(listen: &[Listen]) -> Result<Vec<Front>, Error> {
    let front = |listen: &Listen| {
        let tls = listen.tls.as_ref().map(|tls| tls::server_config(tls, listen.http2));
        Ok(Front { listen: listen.clone(), tls: tls.transpose()? })
    };
    listen.iter().map(front).collect()
}

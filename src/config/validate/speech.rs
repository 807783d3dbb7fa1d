//! Checks of how a pool's endpoints are spoken to.

use std::sync::Arc;

use super::check::Check;
use crate::config::file::{Located, Pool, Switch, Tls};
use crate::config::findings::Flaw;
use crate::logic::speech::{Speech, TlsClient};

impl Check<'_> {
    pub(super) fn speech(&mut self, given: &Pool) -> Arc<Speech> {
        let tls = given.tls.as_ref().and_then(|tls| self.pool_tls(tls));
        Arc::new(Speech { tls })
    }

    fn pool_tls(&mut self, given: &Located<Switch<Tls>>) -> Option<Arc<TlsClient>> {
        let options = match &given.value {
            Switch::Plain(true) => &Tls::default(),
            Switch::Plain(false) => {
                let mend = "leave it away, or write `tls = true`";
                let flaw = Flaw::new("without `tls` a pool is spoken to in cleartext", mend);
                self.findings.error(&given.span, flaw);
                return None;
            }
            Switch::Table(options) => options,
        };
        Some(self.tls_client(options, None, &[b"http/1.1"]))
    }
}

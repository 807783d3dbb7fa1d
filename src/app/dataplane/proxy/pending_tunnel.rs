//! A tunnel between the response that opens it and the connection that runs it.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// A tunnel, to be run to its end.
pub type TunnelFuture = Pin<Box<dyn Future<Output = ()>>>;

/// What a client's connection goes on with when HTTP on it is over, or beside it, where it carries many
/// streams: whoever serves the connection takes it when an answer is a 101. It counts as the same connection.
#[derive(Default)]
pub struct PendingTunnel(RefCell<Option<TunnelFuture>>);

impl PendingTunnel {
    pub(super) fn set(&self, tunnel: impl Future<Output = ()> + 'static) {
        *self.0.borrow_mut() = Some(Box::pin(tunnel));
    }

    /// Takes it out, if there is one.
    pub fn take(&self) -> Option<TunnelFuture> {
        self.0.borrow_mut().take()
    }
}

impl Clone for PendingTunnel {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for PendingTunnel {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for PendingTunnel {}

impl fmt::Debug for PendingTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sequel").field(&self.0.borrow().is_some()).finish()
    }
}

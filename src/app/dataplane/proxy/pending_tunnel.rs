//! A tunnel between the response that opens it and the connection that runs it.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// A tunnel that runs to its end.
pub type TunnelFuture = Pin<Box<dyn Future<Output = ()>>>;

/// The tunnel of a 101 response, for the server of the connection to take.
///
/// Over HTTP/1.1 it replaces HTTP on the connection; over HTTP/2 it is one of its streams.
#[derive(Default)]
pub struct PendingTunnel(RefCell<Option<TunnelFuture>>);

impl PendingTunnel {
    pub(super) fn set(&self, tunnel: impl Future<Output = ()> + 'static) {
        *self.0.borrow_mut() = Some(Box::pin(tunnel));
    }

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

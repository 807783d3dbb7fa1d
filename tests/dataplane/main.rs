//! The request path over real sockets: from the listener to the endpoint and back.

#[path = "../support/mod.rs"]
mod support;

mod affinity;
mod breakers;
mod independent;
mod listener;
mod overload;
mod proxy;
mod retry;
mod routing;
mod upstream;

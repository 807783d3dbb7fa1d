//! The path of a request, over real sockets: from the listener to the endpoint and back.

#[path = "../support/mod.rs"]
mod support;

mod affinity;
mod breakers;
mod front;
mod independent;
mod overload;
mod proxy;
mod resend;
mod routing;
mod upstream;

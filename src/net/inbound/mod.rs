//! The start of client connections: PROXY header, TLS, HTTP version.

mod certificate_resolver;
mod forwarded_client_cert;
pub mod preface;
pub mod proxy_protocol;
pub mod tls;

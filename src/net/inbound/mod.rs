//! How clients' connections begin: who they are for, how they are encrypted, what is spoken.

mod certificate_resolver;
mod forwarded_client_cert;
pub mod preface;
pub mod proxy_protocol;
pub mod tls;

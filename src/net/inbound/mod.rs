//! How clients' connections begin: who they are for, how they are encrypted, what is spoken.

mod certificates;
mod identity;
pub mod preface;
pub mod proxy;
pub mod tls;

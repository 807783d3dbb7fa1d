//! Protocols towards endpoints: TLS, trailers, HTTP/2, PROXY headers.

mod grpc;
mod http2;
mod http2_backpressure;
mod http2_endpoint;
mod proxy_header;
mod tls;
mod trailers;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use gapless::config;
use gapless::logic::model::topology::PoolSpec;

/// Settings with which only requests give evidence, and none makes a verdict.
const WITHOUT_VERDICTS: &str = "probe = { tcp = true }\n\
                     detect = { interval = \"60s\", down_interval = \"60s\", down_after = 1000 }";

/// The pool of a file with these lines, with other files in `directory`.
#[track_caller]
fn pool_spec(directory: &Path, lines: &str, endpoint: SocketAddr) -> Arc<PoolSpec> {
    let text =
        crate::support::config::ConfigBuilder::new().pool(lines).zone("a/b", &[endpoint]).text();
    let name = directory.join("test.toml").display().to_string();
    let loaded = config::parse(&name, &text).unwrap_or_else(|report| panic!("{report}"));
    Arc::clone(&loaded.config.topology.pools[0])
}

/// Runs on a current-thread runtime, as a worker does.
fn block_on_local<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), future)
}

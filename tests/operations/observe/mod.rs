//! Access log, forwarding fields towards endpoints, and rate limits towards
//! clients.

mod access_log_lines;
mod access_log_outcomes;
mod access_log_sinks;
mod forwarded_fields;
mod rate_limits;
mod websocket_tunnels;

use std::path::PathBuf;

use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, poll_until};
use serde_json::Value;
use tempfile::TempDir;

/// An access log in its own file.
struct AccessLogFile {
    _directory: TempDir,
    path: PathBuf,
}

impl AccessLogFile {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("access.log");
        Self { _directory: directory, path }
    }

    /// The `[access_log]` table with more lines.
    fn config_table(&self, more: &str) -> String {
        format!("[access_log]\nto = \"{}\"\n{more}", self.path.display())
    }

    /// Complete lines so far.
    fn lines(&self) -> Vec<String> {
        let text = std::fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8(text).expect("UTF-8");
        text.split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for the first line about this path.
    #[track_caller]
    fn wait_for_line(&self, path: &str) -> Value {
        poll_until(&format!("a line of {path}"), DEFAULT_TIMEOUT, || {
            self.lines_for_path(path).into_iter().next()
        })
    }

    /// All lines about this path.
    fn lines_for_path(&self, path: &str) -> Vec<Value> {
        let lines = self.lines();
        let values = lines.iter().map(|line| serde_json::from_str(line).expect("JSON"));
        values.filter(|line: &Value| line["path"] == path).collect()
    }
}

/// One endpoint, a proxy in front of it, and its access log.
fn start_with_access_log(
    config: ConfigBuilder,
    more: &str,
) -> (TestEndpoint, Gapless, AccessLogFile) {
    let (endpoint, log) = (TestEndpoint::start("one"), AccessLogFile::new());
    let config = config.tables(&log.config_table(more)).zone("here/a", &[endpoint.address()]);
    (endpoint, Gapless::start_ready(&config), log)
}

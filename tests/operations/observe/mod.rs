//! What is told of requests: to the operator in the access log, to endpoints in fields, and to
//! clients who ask for too much.

mod fields;
mod lines;
mod log;
mod rates;
mod sinks;
mod tunnels;

use std::path::PathBuf;

use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;
use crate::support::{SOON, until};
use serde_json::Value;
use tempfile::TempDir;

/// An access log in a file of its own.
struct LogFile {
    _directory: TempDir,
    path: PathBuf,
}

impl LogFile {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("access.log");
        Self { _directory: directory, path }
    }

    /// The table that has it written, with more lines.
    fn table(&self, more: &str) -> String {
        format!("[access_log]\nto = \"{}\"\n{more}", self.path.display())
    }

    /// Whole lines so far.
    fn lines(&self) -> Vec<String> {
        let text = std::fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8(text).expect("UTF-8");
        text.split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(str::to_owned)
            .collect()
    }

    /// The first line about this path, when it is there.
    #[track_caller]
    fn line_of(&self, path: &str) -> Value {
        until(&format!("a line of {path}"), SOON, || self.lines_of(path).into_iter().next())
    }

    /// All lines about this path.
    fn lines_of(&self, path: &str) -> Vec<Value> {
        let lines = self.lines();
        let values = lines.iter().map(|line| serde_json::from_str(line).expect("JSON"));
        values.filter(|line: &Value| line["path"] == path).collect()
    }
}

/// One endpoint, a proxy in front of it, and its log.
fn logged(config: Config, more: &str) -> (Endpoint, Gapless, LogFile) {
    let (endpoint, log) = (Endpoint::start("one"), LogFile::new());
    let config = config.tables(&log.table(more)).zone("here/a", &[endpoint.address()]);
    (endpoint, Gapless::start_ready(&config), log)
}

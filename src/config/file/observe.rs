//! What is written down of requests.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Located, Shape};

/// One line for each request, written when it is over.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct AccessLog {
    /// `stdout`, `off`, or the path of a file, which is opened anew on USR1 and at a reload; a
    /// relative path begins where the configuration file is. Default: `off`.
    pub(in crate::config) to: Option<Located<String>>,
    /// `json`, or `combined` for the format of Apache and nginx. Default: `json`.
    pub(in crate::config) format: Option<Located<String>>,
    /// Write `*` in place of the values in a query; they may be secrets. Default: true.
    pub(in crate::config) redact_query: Option<Located<bool>>,
    /// Request fields that JSON lines have too; none that carries credentials. Default: none.
    pub(in crate::config) headers: Option<Vec<Located<String>>>,
}

impl Shape for AccessLog {
    const EXPECTED: &str = "a table such as { to = \"stdout\" }";
}

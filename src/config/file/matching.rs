//! The conditions of a route beside host and path, and the normalisation of paths, as they are
//! written.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::Deserializer;

use super::located::{Located, TableShape};
use super::text_or_table::TextOrTable;

/// How paths are normalised before they are matched and forwarded.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Paths {
    /// Resolve `.` and `..`, and decode characters that need no encoding (RFC 3986 6.2.2). Default:
    /// true.
    pub(in crate::config) normalise: Option<Located<bool>>,
    /// Merge repeated slashes into one. Default: true.
    pub(in crate::config) merge_slashes: Option<Located<bool>>,
    /// How `%2F` and a backslash, encoded or not, are handled: `keep` it encoded, `reject` the
    /// request, or `decode` it to a slash. Default: `keep`.
    #[schemars(extend("enum" = ["keep", "reject", "decode"]))]
    pub(in crate::config) encoded_slash: Option<Located<String>>,
}

/// A test of a header field or a parameter: an exact text, or a table with one test.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::config) enum ValueTest {
    /// The value must equal this text.
    Text(String),
    /// A table with one test.
    Table(TestTable),
}

/// One test of a value.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct TestTable {
    /// `true`: it must be present, with any value.
    pub(in crate::config) present: Option<Located<bool>>,
    /// `true`: it must be absent.
    pub(in crate::config) absent: Option<Located<bool>>,
    /// The value must begin with this text.
    pub(in crate::config) prefix: Option<Located<String>>,
    /// The whole value must match this regular expression.
    pub(in crate::config) regex: Option<Located<String>>,
}

impl TableShape for Paths {
    const EXPECTED: &str = "a table such as { encoded_slash = \"reject\" }";
}

impl TableShape for TestTable {
    const EXPECTED: &str = "a text, or a table such as { present = true }";
}

impl<'de> Deserialize<'de> for ValueTest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match TextOrTable::deserialize(deserializer)? {
            TextOrTable::Text(text) => Self::Text(text),
            TextOrTable::Table(table) => Self::Table(table),
        })
    }
}

//! What a route asks for beside its host and path, and how paths are read, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::Deserializer;

use super::located::{Located, TableShape};
use super::text_or_table::TextOrTable;

/// How paths are brought to the one form in which they are matched and forwarded.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Paths {
    /// Resolve `.` and `..`, and decode what is encoded without need (RFC 3986 6.2.2). Default: true.
    pub(in crate::config) normalise: Option<Located<bool>>,
    /// Make one slash of several. Default: true.
    pub(in crate::config) merge_slashes: Option<Located<bool>>,
    /// What becomes of `%2F`, and of a backslash, encoded or not: `keep` it encoded, `reject` the
    /// request, or `decode` it to a slash. Default: `keep`.
    pub(in crate::config) encoded_slash: Option<Located<String>>,
}

/// What a header or a parameter must be: exactly a text, or a table with one test.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::config) enum ValueTest {
    /// Exactly this.
    Text(String),
    /// One test.
    Table(TestTable),
}

/// One test of a value.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct TestTable {
    /// `true`: it must be there, whatever it is.
    pub(in crate::config) present: Option<Located<bool>>,
    /// `true`: it must not be there.
    pub(in crate::config) absent: Option<Located<bool>>,
    /// It must begin with this.
    pub(in crate::config) prefix: Option<Located<String>>,
    /// All of it must match this regular expression.
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

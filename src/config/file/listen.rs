//! Where clients connect.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Located;
use super::located::Shape;

/// One client-facing listener.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Listen {
    /// `IP:PORT`; port 0 takes any free port.
    #[schemars(required)]
    pub(in crate::config) address: Option<Located<String>>,
}

impl Shape for Listen {
    const EXPECTED: &str = "a table such as { address = \"0.0.0.0:8080\" }";
}

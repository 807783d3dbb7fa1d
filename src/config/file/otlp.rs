//! The export of spans of requests.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Entries, Located, LocatedTable, TableShape};
use super::probe::Tls;
use super::scalar::{DurationText, WholeNumber};

/// Exports spans of requests and of their attempts to an OpenTelemetry collector over HTTP. It
/// requires a program built with the feature `otlp`, and switches `headers.traceparent` on.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Otlp {
    /// The collector's URL, such as `http://collector:4318`; `/v1/traces` is added to it.
    #[schemars(required)]
    pub(in crate::config) endpoint: Option<Located<String>>,
    /// The share of exported traces among those that begin here, such as `0.1%`; a trace that began
    /// elsewhere is exported if its sampled flag is set. Default: `1%`.
    pub(in crate::config) sample: Option<Located<String>>,
    /// The name of the service in the spans (`service.name`). Default: `gapless`.
    pub(in crate::config) service: Option<Located<String>>,
    /// Further request fields for the collector, by name; secrets belong in `headers_file`.
    pub(in crate::config) headers: Option<Located<Entries<Located<String>>>>,
    /// A file with further request fields, one `name: value` per line, relative to the
    /// configuration file.
    pub(in crate::config) headers_file: Option<Located<String>>,
    /// TLS settings for an endpoint with `https`. Default: the CA certificates of the system.
    pub(in crate::config) tls: Option<LocatedTable<Tls>>,
    /// Time for the export of a batch. Default: 10s.
    pub(in crate::config) timeout: Option<Located<DurationText>>,
    /// The most requests whose spans wait for export; further spans are dropped and counted.
    /// Default: 2048.
    pub(in crate::config) queue: Option<Located<WholeNumber>>,
    /// Spans in one export. Default: 512.
    pub(in crate::config) batch: Option<Located<WholeNumber>>,
}

impl TableShape for Otlp {
    const EXPECTED: &str = "a table such as { endpoint = \"http://127.0.0.1:4318\" }";
}

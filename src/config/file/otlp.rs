//! Where spans of requests go.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Entries, Located, LocatedTable, TableShape};
use super::probe::Tls;
use super::scalar::{DurationText, WholeNumber};

/// Spans of requests and of their tries, for a collector that speaks OpenTelemetry's protocol over
/// HTTP; in programs that are built with the feature `otlp`. `headers.traceparent` is then on.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Otlp {
    /// The collector's URL, such as `http://collector:4318`; `/v1/traces` is added to it.
    #[schemars(required)]
    pub(in crate::config) endpoint: Option<Located<String>>,
    /// The share of traces that are exported of those that begin here, such as `0.1%`; a trace that
    /// somebody else has begun is exported if its sampled flag says so. Default: `1%`.
    pub(in crate::config) sample: Option<Located<String>>,
    /// What the spans say that they are of (`service.name`). Default: `gapless`.
    pub(in crate::config) service: Option<Located<String>>,
    /// Further request fields for the collector, by name; secrets belong in `headers_file`.
    pub(in crate::config) headers: Option<Located<Entries<Located<String>>>>,
    /// A file with further request fields, one `name: value` on a line, relative to the
    /// configuration file.
    pub(in crate::config) headers_file: Option<Located<String>>,
    /// How TLS is spoken to an endpoint with `https`. Default: as the system trusts.
    pub(in crate::config) tls: Option<LocatedTable<Tls>>,
    /// How long the collector may take for a batch. Default: 10s.
    pub(in crate::config) timeout: Option<Located<DurationText>>,
    /// Requests whose spans wait to be exported; what is more is dropped, and counted. Default: 2048.
    pub(in crate::config) queue: Option<Located<WholeNumber>>,
    /// Spans that are sent at once. Default: 512.
    pub(in crate::config) batch: Option<Located<WholeNumber>>,
}

impl TableShape for Otlp {
    const EXPECTED: &str = "a table such as { endpoint = \"http://127.0.0.1:4318\" }";
}

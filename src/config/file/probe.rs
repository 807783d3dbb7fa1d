//! A pool's probes as they are written.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::located::TableShape;
use super::{DurationText, Entries, Located, LocatedTable, SizeText, StatusText, WholeNumber};

/// One probe, or several.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::config) enum Probes {
    /// The only probe.
    One(Box<Probe>),
    /// Several, all of whose gates must pass.
    Many(Vec<LocatedTable<Probe>>),
}

/// How an endpoint is probed. What is asked is one of `http`, `http2`, `grpc`, `tcp` and `tls`;
/// beside one of the others, `tls` says that it is asked over TLS.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Probe {
    /// Ask for this path (and query) over HTTP/1.1.
    pub(in crate::config) http: Option<Located<String>>,
    /// Ask for this path (and query) over HTTP/2; without `tls`, with prior knowledge.
    pub(in crate::config) http2: Option<Located<String>>,
    /// Ask for the health of this gRPC service (`grpc.health.v1.Health/Check`); empty, of the whole
    /// server.
    pub(in crate::config) grpc: Option<Located<String>>,
    /// `true`: a TCP connection that is accepted is a pass. A table says what is sent and expected.
    pub(in crate::config) tcp: Option<Located<Switch<Talk>>>,
    /// Alone, a TLS handshake that completes is a pass. Beside `http`, `http2`, `grpc` or `tcp`:
    /// ask over TLS. `true`, or a table with its options.
    pub(in crate::config) tls: Option<Located<Switch<Tls>>>,
    /// Probe this IP address instead of the endpoint's own.
    pub(in crate::config) address: Option<Located<String>>,
    /// Probe this port instead of the endpoint's own.
    pub(in crate::config) port: Option<Located<WholeNumber>>,
    /// `gate`: the endpoint serves only while this probe passes. `watch`: it is reported, and
    /// decides nothing. Default: `gate`.
    pub(in crate::config) role: Option<Located<String>>,
    /// The first byte of the answer must come within this time from the probe's start. Default: the
    /// pool's `detect.timeout`, which bounds the whole probe.
    pub(in crate::config) first_byte: Option<Located<DurationText>>,
    /// Keep the connection for the next probe, for up to a minute. Default: false.
    pub(in crate::config) reuse: Option<Located<bool>>,
    /// At most so much of an answer's body is read. Default: 64 KiB.
    pub(in crate::config) read: Option<Located<SizeText>>,
    /// With `http` or `http2`: the method. Default: `GET`, or `POST` with a `body`.
    pub(in crate::config) method: Option<Located<String>>,
    /// With `http`, `http2` or `grpc`: the Host header or `:authority`, and over TLS the name that
    /// the certificate must have. Default: the endpoint's `address:port`.
    pub(in crate::config) host: Option<Located<String>>,
    /// With `http` or `http2`: further headers, by name.
    pub(in crate::config) headers: Option<Located<Entries<Located<String>>>>,
    /// With `http` or `http2`: what is sent with the request. Default: nothing.
    pub(in crate::config) body: Option<Located<String>>,
    /// With `http` or `http2`: the statuses that pass. Default: `200-299`.
    pub(in crate::config) expect_status: Option<Located<StatusText>>,
    /// With `http` or `http2`: text that the body must contain. Default: none.
    pub(in crate::config) expect_body: Option<Located<String>>,
    /// With `http` or `http2`: a regular expression that the body must match. Default: none.
    pub(in crate::config) expect_body_regex: Option<Located<String>>,
    /// With `http` or `http2`: a value that the body, which is JSON, must have. Default: none.
    pub(in crate::config) expect_json: Option<LocatedTable<JsonTest>>,
    /// With `http` or `http2`: what in an answer that passes means that the endpoint should get
    /// less. Default: nothing.
    pub(in crate::config) degraded: Option<LocatedTable<Degraded>>,
}

/// What is said to an endpoint over TCP, and what it must answer.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Talk {
    /// What is sent first, such as `"PING\r\n"`. Default: nothing.
    pub(in crate::config) send: Option<Located<String>>,
    /// What must be among what comes back, such as `"+PONG"`. Default: nothing.
    pub(in crate::config) expect: Option<Located<String>>,
}

/// How TLS is spoken to an endpoint.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Tls {
    /// The name that is asked for and that the certificate must have. Default: a probe's `host`,
    /// or else the address.
    pub(in crate::config) server_name: Option<Located<String>>,
    /// A file of certificates (PEM) whose issuers are trusted, relative to the configuration file.
    /// Default: what the system trusts.
    pub(in crate::config) ca_file: Option<Located<String>>,
    /// A file with the certificate (PEM) that is shown to an endpoint that asks for one, and those
    /// above it.
    pub(in crate::config) certificate: Option<Located<String>>,
    /// A file with the private key (PEM) of `certificate`.
    pub(in crate::config) key: Option<Located<String>>,
    /// Whether the endpoint's certificate is checked. Default: true.
    pub(in crate::config) verify: Option<Located<bool>>,
}

/// A value at a place in a JSON document.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct JsonTest {
    /// Where it stands (RFC 6901), such as `/status`.
    #[schemars(required)]
    pub(in crate::config) pointer: Option<Located<String>>,
    /// What it is: text, a number, `true` or `false`.
    #[schemars(required)]
    pub(in crate::config) equals: Option<Located<JsonScalar>>,
}

/// What in an answer that passes means that the endpoint should get less.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Degraded {
    /// A header with its value, such as `"x-health: degraded"`.
    pub(in crate::config) header: Option<Located<String>>,
    /// A value in a body that is JSON.
    pub(in crate::config) json: Option<LocatedTable<JsonTest>>,
    /// The share of its weight that the endpoint keeps meanwhile, 1 to 99. Default: 50.
    pub(in crate::config) weight_percent: Option<Located<WholeNumber>>,
}

impl TableShape for Probe {
    const EXPECTED: &str = "a table such as { http = \"/healthz\" } or { tcp = true }";
}

impl TableShape for Talk {
    const EXPECTED: &str = "true, or a table such as { send = \"PING\\r\\n\", expect = \"+PONG\" }";
}

impl TableShape for Tls {
    const EXPECTED: &str = "true, or a table such as { ca_file = \"ca.pem\" }";
}

impl TableShape for JsonTest {
    const EXPECTED: &str = "a table such as { pointer = \"/status\", equals = \"ok\" }";
}

impl TableShape for Degraded {
    const EXPECTED: &str = "a table such as { header = \"x-health: degraded\" }";
}

impl<'de> Deserialize<'de> for Probes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProbesVisitor)
    }
}

/// Untagged enums lose the place of an error inside them; a visitor keeps it.
struct ProbesVisitor;

impl<'de> Visitor<'de> for ProbesVisitor {
    type Value = Probes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Probe::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Probes, A::Error> {
        Probe::deserialize(MapAccessDeserializer::new(map)).map(|probe| Probes::One(probe.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Probes, A::Error> {
        let mut probes = Vec::new();
        while let Some(probe) = list.next_element()? {
            probes.push(probe);
        }
        Ok(Probes::Many(probes))
    }
}

/// `true`, or a table with options.
#[derive(Clone, Debug)]
pub(in crate::config) enum Switch<T> {
    /// A plain yes or no.
    Plain(bool),
    Table(T),
}

impl<'de, T: Deserialize<'de> + TableShape> Deserialize<'de> for Switch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SwitchVisitor(PhantomData))
    }
}

struct SwitchVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + TableShape> Visitor<'de> for SwitchVisitor<T> {
    type Value = Switch<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_bool<E: Error>(self, plain: bool) -> Result<Switch<T>, E> {
        Ok(Switch::Plain(plain))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Switch<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Switch::Table)
    }
}

impl<T: JsonSchema> JsonSchema for Switch<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}Switch", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "const": true }, table] })
    }
}

/// Text, a number, `true` or `false`.
#[derive(Clone, Debug)]
pub(in crate::config) struct JsonScalar(pub(in crate::config) Value);

impl<'de> Deserialize<'de> for JsonScalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonScalarVisitor)
    }
}

struct JsonScalarVisitor;

impl Visitor<'_> for JsonScalarVisitor {
    type Value = JsonScalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, true or false")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<JsonScalar, E> {
        Ok(JsonScalar(text.into()))
    }

    fn visit_bool<E: Error>(self, is: bool) -> Result<JsonScalar, E> {
        Ok(JsonScalar(is.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<JsonScalar, E> {
        Ok(JsonScalar(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<JsonScalar, E> {
        Ok(JsonScalar(number.into()))
    }
}

impl JsonSchema for JsonScalar {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "JsonScalar".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

//! The probes of a pool, as they are written.

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

/// One probe, or a list of probes.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::config) enum Probes {
    /// The only probe of the pool.
    One(Box<Probe>),
    /// Several probes; all with the role `gate` must pass.
    Many(Vec<LocatedTable<Probe>>),
}

/// How an endpoint is probed. The kind is one of `http`, `http2`, `grpc`, `tcp` and `tls`; beside
/// one of the others, `tls` sends that probe over TLS.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Probe {
    /// Request this path (and query) over HTTP/1.1.
    pub(in crate::config) http: Option<Located<String>>,
    /// Request this path (and query) over HTTP/2; without `tls`, with prior knowledge.
    pub(in crate::config) http2: Option<Located<String>>,
    /// Request the health of this gRPC service (`grpc.health.v1.Health/Check`); empty for the whole
    /// server.
    pub(in crate::config) grpc: Option<Located<String>>,
    /// `true`: an accepted TCP connection is a pass. A table defines the bytes that are sent and
    /// expected.
    pub(in crate::config) tcp: Option<Located<Switch<Talk>>>,
    /// Alone: a completed TLS handshake is a pass. Beside `http`, `http2`, `grpc` or `tcp`: probe
    /// over TLS. `true`, or a table with its options.
    pub(in crate::config) tls: Option<Located<Switch<Tls>>>,
    /// Probe this IP address instead of the endpoint's own.
    pub(in crate::config) address: Option<Located<String>>,
    /// Probe this port instead of the endpoint's own.
    pub(in crate::config) port: Option<Located<WholeNumber>>,
    /// `gate`: the endpoint serves only while this probe passes. `watch`: the result is reported
    /// and has no effect. Default: `gate`.
    #[schemars(extend("enum" = ["gate", "watch"]))]
    pub(in crate::config) role: Option<Located<String>>,
    /// Time from the start of the probe to the first byte of the response. Default: the pool's
    /// `detect.timeout`, which limits the whole probe.
    pub(in crate::config) first_byte: Option<Located<DurationText>>,
    /// Keep the connection for the next probe, for up to a minute. Default: false.
    pub(in crate::config) reuse: Option<Located<bool>>,
    /// The most bytes of a response body that are read. Default: 64 KiB.
    pub(in crate::config) read: Option<Located<SizeText>>,
    /// With `http` or `http2`: the method. Default: `GET`, or `POST` with a `body`.
    pub(in crate::config) method: Option<Located<String>>,
    /// With `http`, `http2` or `grpc`: the Host header or `:authority`, and over TLS the name in
    /// the certificate. Default: the endpoint's `address:port`.
    pub(in crate::config) host: Option<Located<String>>,
    /// With `http` or `http2`: further headers, by name.
    pub(in crate::config) headers: Option<Located<Entries<Located<String>>>>,
    /// With `http` or `http2`: the body of the request. Default: none.
    pub(in crate::config) body: Option<Located<String>>,
    /// With `http` or `http2`: the statuses that pass. Default: `200-299`.
    pub(in crate::config) expect_status: Option<Located<StatusText>>,
    /// With `http` or `http2`: text that the body must contain. Default: none.
    pub(in crate::config) expect_body: Option<Located<String>>,
    /// With `http` or `http2`: a regular expression that the body must match. Default: none.
    pub(in crate::config) expect_body_regex: Option<Located<String>>,
    /// With `http` or `http2`: a value that the JSON body must contain. Default: none.
    pub(in crate::config) expect_json: Option<LocatedTable<JsonTest>>,
    /// With `http` or `http2`: a sign in a passing response that the endpoint is degraded and gets
    /// less traffic. Default: none.
    pub(in crate::config) degraded: Option<LocatedTable<Degraded>>,
}

/// The bytes that a TCP probe sends and expects.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Talk {
    /// The bytes that are sent first, such as `"PING\r\n"`. Default: none.
    pub(in crate::config) send: Option<Located<String>>,
    /// The bytes that the response must contain, such as `"+PONG"`. Default: none.
    pub(in crate::config) expect: Option<Located<String>>,
}

/// TLS settings for connections to endpoints.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Tls {
    /// The requested server name, which the certificate must contain. Default: a probe's `host`, or
    /// else the address.
    pub(in crate::config) server_name: Option<Located<String>>,
    /// A file of trusted CA certificates (PEM), relative to the configuration file. Default: the CA
    /// certificates of the system.
    pub(in crate::config) ca_file: Option<Located<String>>,
    /// A file with the client certificate (PEM) for endpoints that request one, and its
    /// intermediate certificates.
    pub(in crate::config) certificate: Option<Located<String>>,
    /// A file with the private key (PEM) of `certificate`.
    pub(in crate::config) key: Option<Located<String>>,
    /// Whether the endpoint's certificate is checked. Default: true.
    pub(in crate::config) verify: Option<Located<bool>>,
}

/// A test of one value in a JSON document.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct JsonTest {
    /// A JSON pointer to the value (RFC 6901), such as `/status`.
    #[schemars(required)]
    pub(in crate::config) pointer: Option<Located<String>>,
    /// The required value: text, a number, `true` or `false`.
    #[schemars(required)]
    pub(in crate::config) equals: Option<Located<JsonScalar>>,
}

/// A sign in a passing response that the endpoint is degraded.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Degraded {
    /// A header with its value, such as `"x-health: degraded"`.
    pub(in crate::config) header: Option<Located<String>>,
    /// A value in a JSON body.
    pub(in crate::config) json: Option<LocatedTable<JsonTest>>,
    /// The percentage of its weight that a degraded endpoint keeps, 1 to 99. Default: 50.
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

/// An untagged enum of serde would lose the place of an error inside a probe; a visitor keeps it.
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
    /// `true` or `false`, without options.
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

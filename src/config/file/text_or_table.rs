//! Values that are written as plain text or as a table.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::located::TableShape;

/// Text, or a table with further keys.
///
/// An untagged enum of serde would lose the place of an error inside the table; a visitor keeps it.
#[derive(Clone, Debug)]
pub(in crate::config) enum TextOrTable<T> {
    Text(String),
    Table(T),
}

impl<'de, T: Deserialize<'de> + TableShape> Deserialize<'de> for TextOrTable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrTableVisitor(PhantomData))
    }
}

struct TextOrTableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + TableShape> Visitor<'de> for TextOrTableVisitor<T> {
    type Value = TextOrTable<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<TextOrTable<T>, E> {
        Ok(TextOrTable::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TextOrTable<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(TextOrTable::Table)
    }
}

impl<T: JsonSchema + TableShape> JsonSchema for TextOrTable<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}OrWord", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "string", "enum": T::WORDS }, table] })
    }
}

//! Values with their place in the file, and maps in the order of the file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A value and the bytes of the file that it was read from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::config) struct Located<T> {
    pub(in crate::config) value: T,
    /// The place of the value; for a table with a header line, the header.
    pub(in crate::config) span: Range<usize>,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(deserializer)?;
        let span = spanned.span();
        Ok(Self { value: spanned.into_inner(), span })
    }
}

/// A table of known keys, with its place.
///
/// A derived struct would also accept a list, field by field in the order of the source. Here a
/// list is a type error.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::config) struct LocatedTable<T> {
    pub(in crate::config) value: T,
    /// The header line, or the braces and the text between them.
    pub(in crate::config) span: Range<usize>,
}

/// The text of a type error where the file has something else than a table.
pub(in crate::config) trait TableShape {
    const EXPECTED: &str = "a table";
    /// The words that stand for a table, where text may; for the schema.
    const WORDS: &[&str] = &[];
}

impl<'de, T: Deserialize<'de> + TableShape> Deserialize<'de> for LocatedTable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Located { value: OnlyMap(value), span } = Located::deserialize(deserializer)?;
        Ok(Self { value, span })
    }
}

struct OnlyMap<T>(T);

impl<'de, T: Deserialize<'de> + TableShape> Deserialize<'de> for OnlyMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OnlyMapVisitor(PhantomData)).map(Self)
    }
}

struct OnlyMapVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + TableShape> Visitor<'de> for OnlyMapVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Gives a wrapper the schema of the value inside it, under the value's name: the place of a value
/// is no part of a file. (The transparent derive of schemars would define the wrapper by name.)
macro_rules! delegate_schema {
    ($($wrapper:ident),+) => {
        $(
            impl<T: JsonSchema> JsonSchema for $wrapper<T> {
                fn inline_schema() -> bool {
                    T::inline_schema()
                }

                fn schema_name() -> Cow<'static, str> {
                    T::schema_name()
                }

                fn schema_id() -> Cow<'static, str> {
                    T::schema_id()
                }

                fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                    T::json_schema(generator)
                }
            }
        )+
    };
}

delegate_schema!(Located, LocatedTable);

/// The entries of a table whose keys the operator chooses, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct Entries<V>(pub(in crate::config) Vec<(Located<String>, V)>);

impl<V> Default for Entries<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

struct EntriesVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for EntriesVisitor<V> {
    type Value = Entries<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Vec<(Located<String>, V)> = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        entries.sort_by_key(|(key, _)| key.span.start);
        Ok(Entries(entries))
    }
}

impl<V: JsonSchema> JsonSchema for Entries<V> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        BTreeMap::<String, V>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, V>::json_schema(generator)
    }
}

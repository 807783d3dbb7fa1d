//! The JSON Schema of the file, for editors and other programs.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::Value;

use super::file::ConfigFile;

/// The JSON Schema (2020-12) of a configuration file, with a description of every key. It covers
/// the shape of the file; [`super::parse`] checks the rest, such as whether the pool of a route
/// exists.
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let mut schema = generator.into_root_schema_for::<ConfigFile>();
    RecursiveTransform(remove_null_types).transform(&mut schema);
    schema.to_value()
}

/// Removes `null` from the types: an optional key is an `Option` in [`super::file`], and TOML has
/// no `null`.
fn remove_null_types(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
}

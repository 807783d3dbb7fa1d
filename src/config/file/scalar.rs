//! Quantities as they are written. Reading them takes any text or whole number, so that the checks
//! that follow can say what is wrong with the value itself and how to write it.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Text or a whole number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum Scalar {
    Text(String),
    Integer(i64),
}

struct ScalarVisitor {
    expecting: &'static str,
}

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_i64<E: Error>(self, whole: i64) -> Result<Scalar, E> {
        Ok(Scalar::Integer(whole))
    }
}

fn deserialize_scalar<'de, D: Deserializer<'de>>(
    deserializer: D,
    expecting: &'static str,
) -> Result<Scalar, D::Error> {
    deserializer.deserialize_any(ScalarVisitor { expecting })
}

/// A length of time, such as `"1m30s"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct DurationText(pub(in crate::config) Scalar);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_scalar(deserializer, "a duration such as \"500ms\"").map(Self)
    }
}

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A length of time with its unit.",
            "pattern": "^ *[0-9].*[a-z] *$",
            "examples": ["250ms", "1s", "1m30s", "1h"],
        })
    }
}

/// A length of time that may be in days, such as `"90d"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct AgeText(pub(in crate::config) Scalar);

impl<'de> Deserialize<'de> for AgeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_scalar(deserializer, "a length of time such as \"90d\"").map(Self)
    }
}

impl JsonSchema for AgeText {
    fn schema_name() -> Cow<'static, str> {
        "Age".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A length of time with its unit, which may be `d` for days.",
            "pattern": "^ *[0-9].*[a-z] *$",
            "examples": ["90d", "36h"],
        })
    }
}

/// A length of time, or `"unlimited"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct DeadlineText(pub(in crate::config) Scalar);

impl<'de> Deserialize<'de> for DeadlineText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_scalar(deserializer, "a duration such as \"30s\", or \"unlimited\"").map(Self)
    }
}

impl JsonSchema for DeadlineText {
    fn schema_name() -> Cow<'static, str> {
        "Deadline".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A length of time with its unit, or `unlimited`.",
            "pattern": "^ *([0-9].*[a-z]|unlimited) *$",
            "examples": ["30s", "5m", "unlimited"],
        })
    }
}

/// A number of bytes, such as `"64KiB"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct SizeText(pub(in crate::config) Scalar);

impl<'de> Deserialize<'de> for SizeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_scalar(deserializer, "a size such as \"64KiB\"").map(Self)
    }
}

impl JsonSchema for SizeText {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "A size with its unit, or a whole number of bytes.",
            "pattern": "^ *[0-9]+ *([kKmMgG][iI]?)?[bB] *$",
            "minimum": 0,
            "examples": ["64KiB", "10MB", 65536],
        })
    }
}

/// A number of bytes, `"unlimited"`, or what the `"system"` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct MemoryLimitText(pub(in crate::config) Scalar);

impl<'de> Deserialize<'de> for MemoryLimitText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_scalar(deserializer, "a size such as \"512MiB\", \"unlimited\" or \"system\"")
            .map(Self)
    }
}

impl JsonSchema for MemoryLimitText {
    fn schema_name() -> Cow<'static, str> {
        "Bound".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "A size with its unit, a whole number of bytes, `unlimited`, or `system`.",
            "pattern": "^ *([0-9]+ *([kKmMgG][iI]?)?[bB]|unlimited|system) *$",
            "minimum": 0,
            "examples": ["512MiB", "unlimited", "system"],
        })
    }
}

/// A whole number; that it is one, and inside its bounds, is checked later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct WholeNumber(pub(in crate::config) Scalar);

impl<'de> Deserialize<'de> for WholeNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_scalar(deserializer, "a whole number").map(Self)
    }
}

impl JsonSchema for WholeNumber {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Whole".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0 })
    }
}

/// A share as a whole number from 1 to 100, or `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct PercentText(pub(in crate::config) Scalar);

impl<'de> Deserialize<'de> for PercentText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_scalar(deserializer, "a percentage such as 60, or \"off\"").map(Self)
    }
}

impl JsonSchema for PercentText {
    fn schema_name() -> Cow<'static, str> {
        "PercentOrOff".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "A percentage, or `off`.",
            "pattern": "^ *off *$",
            "minimum": 1,
            "maximum": 100,
            "examples": [60, "off"],
        })
    }
}

/// Statuses that pass, such as `"200-299,304"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct StatusText(pub(in crate::config) Scalar);

impl<'de> Deserialize<'de> for StatusText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_scalar(deserializer, "statuses such as \"200-299\" or \"200,204\"").map(Self)
    }
}

impl JsonSchema for StatusText {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "One status, or statuses and ranges with commas between them.",
            "pattern": "^ *[1-5][0-9]{2} *(- *[1-5][0-9]{2} *)?(, *[1-5][0-9]{2} *(- *[1-5][0-9]{2} *)?)*$",
            "minimum": 100,
            "maximum": 599,
            "examples": ["200-299", "200,204", 200],
        })
    }
}

/// Server errors, such as `"500,502-504"`, or `"none"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct ServerErrorsText(pub(in crate::config) Scalar);

impl<'de> Deserialize<'de> for ServerErrorsText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_scalar(deserializer, "statuses such as \"500,502-504\"").map(Self)
    }
}

impl JsonSchema for ServerErrorsText {
    fn schema_name() -> Cow<'static, str> {
        "ServerErrors".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "One server error, or server errors and ranges with commas between them; `none` or nothing for none.",
            "pattern": "^ *(none)? *$|^ *5[0-9]{2} *(- *5[0-9]{2} *)?(, *5[0-9]{2} *(- *5[0-9]{2} *)?)*$",
            "minimum": 500,
            "maximum": 599,
            "examples": ["500,502-504", "503", "none"],
        })
    }
}

/// A whole number, or `"unlimited"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct LimitText(pub(in crate::config) Scalar);

impl<'de> Deserialize<'de> for LimitText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_scalar(deserializer, "a whole number or \"unlimited\"").map(Self)
    }
}

impl JsonSchema for LimitText {
    fn schema_name() -> Cow<'static, str> {
        "Cap".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "A whole number, or `unlimited`.",
            "pattern": "^unlimited$",
            "minimum": 0,
            "examples": [100, "unlimited"],
        })
    }
}

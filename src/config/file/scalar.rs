//! Quantities as they are written in the file. Deserializing accepts any text or whole number;
//! the checks that follow explain what is wrong with a value and how to write it.

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

/// Defines newtypes of [`Scalar`]: `Type, "name in the schema" (inline), "text of a type error",
/// { JSON Schema }`. An inline schema is repeated where it is used, not referred to by its name.
macro_rules! scalar_types {
    (@is_inline) => { false };
    (@is_inline inline) => { true };
    ($($(#[$doc:meta])* $type:ident, $name:literal $($inline:ident)?, $expecting:literal, $schema:tt;)+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub(in crate::config) struct $type(pub(in crate::config) Scalar);

            impl<'de> Deserialize<'de> for $type {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    deserializer.deserialize_any(ScalarVisitor { expecting: $expecting }).map(Self)
                }
            }

            impl JsonSchema for $type {
                fn inline_schema() -> bool {
                    scalar_types!(@is_inline $($inline)?)
                }

                fn schema_name() -> Cow<'static, str> {
                    $name.into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!($schema)
                }
            }
        )+
    };
}

scalar_types! {
    /// A length of time, such as `"1m30s"`.
    DurationText, "Duration", "a duration such as \"500ms\"", {
        "type": "string",
        "description": "A duration with its unit.",
        "pattern": "^ *[0-9].*[a-z] *$",
        "examples": ["250ms", "1s", "1m30s", "1h"],
    };

    /// A length of time that may be in days, such as `"90d"`.
    AgeText, "Age", "a duration such as \"90d\"", {
        "type": "string",
        "description": "A duration with its unit, which may be `d` for days.",
        "pattern": "^ *[0-9].*[a-z] *$",
        "examples": ["90d", "36h"],
    };

    /// A length of time, or `"unlimited"`.
    DeadlineText, "Deadline", "a duration such as \"30s\", or \"unlimited\"", {
        "type": "string",
        "description": "A duration with its unit, or `unlimited`.",
        "pattern": "^ *([0-9].*[a-z]|unlimited) *$",
        "examples": ["30s", "5m", "unlimited"],
    };

    /// A number of bytes, such as `"64KiB"`.
    SizeText, "Size", "a size such as \"64KiB\"", {
        "type": ["string", "integer"],
        "description": "A size with its unit, or a whole number of bytes.",
        "pattern": "^ *[0-9]+ *([kKmMgG][iI]?)?[bB] *$",
        "minimum": 0,
        "examples": ["64KiB", "10MB", 65536],
    };

    /// A number of bytes, `"unlimited"`, or `"system"` for the limit of the system.
    MemoryLimitText, "Bound", "a size such as \"512MiB\", \"unlimited\" or \"system\"", {
        "type": ["string", "integer"],
        "description": "A size with its unit, a whole number of bytes, `unlimited`, or `system`.",
        "pattern": "^ *([0-9]+ *([kKmMgG][iI]?)?[bB]|unlimited|system) *$",
        "minimum": 0,
        "examples": ["512MiB", "unlimited", "system"],
    };

    /// A whole number; the checks verify its type and range.
    WholeNumber, "Whole" inline, "a whole number", { "type": "integer", "minimum": 0 };

    /// A share as a whole number from 1 to 100, or `off`.
    PercentText, "PercentOrOff", "a percentage such as 60, or \"off\"", {
        "type": ["string", "integer"],
        "description": "A percentage, or `off`.",
        "pattern": "^ *off *$",
        "minimum": 1,
        "maximum": 100,
        "examples": [60, "off"],
    };

    /// Statuses and ranges of statuses, such as `"200-299,304"`.
    StatusText, "Statuses", "statuses such as \"200-299\" or \"200,204\"", {
        "type": ["string", "integer"],
        "description": "One status, or statuses and ranges with commas between them.",
        "pattern": "^ *[1-5][0-9]{2} *(- *[1-5][0-9]{2} *)?(, *[1-5][0-9]{2} *(- *[1-5][0-9]{2} *)?)*$",
        "minimum": 100,
        "maximum": 599,
        "examples": ["200-299", "200,204", 200],
    };

    /// Server errors, such as `"500,502-504"`, or `"none"`.
    ServerErrorsText, "ServerErrors", "statuses such as \"500,502-504\"", {
        "type": ["string", "integer"],
        "description": "One server error, or server errors and ranges with commas between them; `none` or nothing for none.",
        "pattern": "^ *(none)? *$|^ *5[0-9]{2} *(- *5[0-9]{2} *)?(, *5[0-9]{2} *(- *5[0-9]{2} *)?)*$",
        "minimum": 500,
        "maximum": 599,
        "examples": ["500,502-504", "503", "none"],
    };

    /// A whole number, or `"unlimited"`.
    LimitText, "Cap", "a whole number or \"unlimited\"", {
        "type": ["string", "integer"],
        "description": "A whole number, or `unlimited`.",
        "pattern": "^unlimited$",
        "minimum": 0,
        "examples": [100, "unlimited"],
    };
}

//! What `/api/v1/explain` is asked: `of=…&pool=…&format=…`.

use std::fmt::Write;

/// The keys of the query, for whoever got them wrong.
const KEYS: &str =
    "`of` (an address, a region/zone or a region), `pool` and `format` (json or text)";

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// One JSON object.
    #[default]
    Json,
    /// For people.
    Text,
}

/// A question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// What is to be explained.
    pub of: String,
    /// In this pool only.
    pub pool: Option<String>,
    /// How the answer is written.
    pub form: Form,
}

impl Query {
    /// Reads the part of a target that follows the question mark.
    ///
    /// # Errors
    /// When it does not say what to explain, or says something that has no meaning.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self::default();
        for (key, value) in pairs(text) {
            match key {
                "of" => query.of = value,
                "pool" => query.pool = Some(value).filter(|name| !name.is_empty()),
                "format" if value == "json" => query.form = Form::Json,
                "format" if value == "text" => query.form = Form::Text,
                "format" => return Err(format!("`{value}` is not a format; the keys are {KEYS}")),
                _ => return Err(format!("`{key}` has no meaning here; the keys are {KEYS}")),
            }
        }
        if query.of.is_empty() {
            return Err(format!(
                "say what to explain, such as ?of=10.0.1.11:9000; the keys are {KEYS}"
            ));
        }
        Ok(query)
    }

    /// The target that asks this.
    #[must_use]
    pub fn target(&self) -> String {
        let mut target = format!("/api/v1/explain?of={}", encode(&self.of));
        if let Some(pool) = &self.pool {
            target.push_str("&pool=");
            target.push_str(&encode(pool));
        }
        target.push_str(match self.form {
            Form::Json => "&format=json",
            Form::Text => "&format=text",
        });
        target
    }
}

/// Percent-encodes all but what stands for itself everywhere (RFC 3986, section 2.3), `:` and `/`.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Keys and values of a query, with the values decoded.
pub(in crate::app) fn pairs(text: &str) -> impl Iterator<Item = (&str, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key, decode(value)))
}

/// The reverse; what is not encoded well stays as it is.
pub fn decode(text: &str) -> String {
    let hex = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16));
    let bytes = text.as_bytes();
    let (mut decoded, mut index) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(index) {
        let code = match (byte, hex(bytes.get(index + 1)), hex(bytes.get(index + 2))) {
            (b'%', Some(high), Some(low)) => Some((high * 16 + low) as u8),
            _ => None,
        };
        decoded.push(code.unwrap_or(byte));
        index += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_question_is_read() {
        let query = Query::parse("of=us-south%2Fus-south-1&pool=web&format=text").expect("good");
        assert_eq!(query.of, "us-south/us-south-1");
        assert_eq!((query.pool.as_deref(), query.form), (Some("web"), Form::Text));
        assert_eq!(Query::parse("of=[::1]:80").expect("good").of, "[::1]:80");
        assert!(Query::parse("").expect_err("of what?").contains("?of=10.0.1.11:9000"));
        assert!(Query::parse("of=a&format=xml").expect_err("no").contains("`xml` is not a format"));
        assert!(Query::parse("off=a").expect_err("no").contains("`off` has no meaning"));
    }

    proptest! {
        #[test]
        fn whatever_is_asked_arrives(of in ".{1,20}", pool in proptest::option::of("[a-z]{1,4}")) {
            let query = Query { of, pool, form: Form::Text };
            let target = query.target();
            let (_, text) = target.split_once('?').expect("a query");
            prop_assert_eq!(Query::parse(text), Ok(query));
        }
    }
}

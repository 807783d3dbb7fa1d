//! The query of `/api/v1/explain`: `of=…&pool=…&format=…`.

use std::fmt::Write;

/// The keys of the query, for error messages.
const QUERY_HELP: &str =
    "`of` (an address, a region/zone or a region), `pool` and `format` (json or text)";

/// Format of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExplainFormat {
    #[default]
    Json,
    Text,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExplainQuery {
    /// Address, zone or region to explain.
    pub target_name: String,
    /// Only in this pool.
    pub pool: Option<String>,
    pub format: ExplainFormat,
}

impl ExplainQuery {
    /// Parses the query part of a request's target.
    ///
    /// # Errors
    /// If `of` is missing, a key is unknown or a value is invalid.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self::default();
        for (key, value) in query_pairs(text) {
            match key {
                "of" => query.target_name = value,
                "pool" => query.pool = Some(value).filter(|name| !name.is_empty()),
                "format" if value == "json" => query.format = ExplainFormat::Json,
                "format" if value == "text" => query.format = ExplainFormat::Text,
                "format" => {
                    return Err(format!("`{value}` is not a format; the keys are {QUERY_HELP}"));
                }
                _ => return Err(format!("`{key}` is not a key; the keys are {QUERY_HELP}")),
            }
        }
        if query.target_name.is_empty() {
            return Err(format!(
                "say what to explain, such as ?of=10.0.1.11:9000; the keys are {QUERY_HELP}"
            ));
        }
        Ok(query)
    }

    /// The request's target for this query.
    pub fn to_request_target(&self) -> String {
        let mut target = format!("/api/v1/explain?of={}", percent_encode(&self.target_name));
        if let Some(pool) = &self.pool {
            target.push_str("&pool=");
            target.push_str(&percent_encode(pool));
        }
        target.push_str(match self.format {
            ExplainFormat::Json => "&format=json",
            ExplainFormat::Text => "&format=text",
        });
        target
    }
}

/// Percent-encodes all but unreserved characters (RFC 3986, section 2.3), `:` and `/`.
pub fn percent_encode(text: &str) -> String {
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

/// Keys and percent-decoded values of a query.
pub(in crate::app) fn query_pairs(text: &str) -> impl Iterator<Item = (&str, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key, percent_decode(value)))
}

/// Inverse of [`percent_encode`]; invalid escapes stay unchanged.
pub fn percent_decode(text: &str) -> String {
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
    fn query_with_all_keys_is_parsed() {
        let query =
            ExplainQuery::parse("of=us-south%2Fus-south-1&pool=web&format=text").expect("good");
        assert_eq!(query.target_name, "us-south/us-south-1");
        assert_eq!((query.pool.as_deref(), query.format), (Some("web"), ExplainFormat::Text));
        assert_eq!(ExplainQuery::parse("of=[::1]:80").expect("good").target_name, "[::1]:80");
        assert!(ExplainQuery::parse("").expect_err("of what?").contains("?of=10.0.1.11:9000"));
        assert!(
            ExplainQuery::parse("of=a&format=xml")
                .expect_err("no")
                .contains("`xml` is not a format")
        );
        assert!(ExplainQuery::parse("off=a").expect_err("no").contains("`off` is not a key"));
    }

    proptest! {
        #[test]
        fn encoded_query_is_parsed_back_equal(target_name in ".{1,20}", pool in proptest::option::of("[a-z]{1,4}")) {
            let query = ExplainQuery { target_name, pool, format: ExplainFormat::Text };
            let target = query.to_request_target();
            let (_, text) = target.split_once('?').expect("a query");
            prop_assert_eq!(ExplainQuery::parse(text), Ok(query));
        }
    }
}

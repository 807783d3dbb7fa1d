//! Masks the values of secret keys in lines of the file, because diagnostics go into logs and into
//! the API.

use std::borrow::Cow;

/// Parts of the names of secret keys, in lower case.
const SECRET_WORDS: [&str; 7] =
    ["authorization", "cookie", "token", "secret", "password", "api-key", "api_key"];

/// The line with `*` for each byte of a secret; its length is unchanged, so that columns stay
/// valid.
pub(super) fn redact(line: &str) -> Cow<'_, str> {
    let lower = line.to_ascii_lowercase();
    let mut redacted: Option<Vec<u8>> = None;
    for word in SECRET_WORDS {
        for (at, _) in lower.match_indices(word) {
            if let Some(range) = value_range(line.as_bytes(), at + word.len()) {
                redacted.get_or_insert_with(|| line.into())[range].fill(b'*');
            }
        }
    }
    redacted
        .map_or(Cow::Borrowed(line), |bytes| String::from_utf8_lossy(&bytes).into_owned().into())
}

/// The inside of the string value of the key that ends at or after `from`: up to the closing quote,
/// or to the end of the line.
fn value_range(line: &[u8], from: usize) -> Option<std::ops::Range<usize>> {
    let is_key = |&byte: &u8| byte.is_ascii_alphanumeric() || b"-_\"' \t".contains(&byte);
    let equals = from + line[from..].iter().position(|byte| !is_key(byte))?;
    let rest = line.get(equals + 1..).filter(|_| line[equals] == b'=')?;
    let start = equals + 1 + rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let quote = line[start];
    if quote != b'"' && quote != b'\'' {
        return None;
    }
    // Three quotes begin a multi-line string.
    let opened = line[start..].iter().take_while(|&&byte| byte == quote).take(3).count();
    let inside = if opened == 2 { start + 1 } else { start + opened };
    let mut end = inside;
    while end < line.len() && line[end] != quote {
        end += if line[end] == b'\\' && quote == b'"' { 2 } else { 1 };
    }
    Some(inside..end.min(line.len()))
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn secret_values_are_masked_and_length_is_kept() {
        for (line, shown) in [
            ("authorization = \"Bearer x\" # why", "authorization = \"********\" # why"),
            (
                "{ Authorization = 'a b', intervall = 1 }",
                "{ Authorization = '***', intervall = 1 }",
            ),
            ("\"x-api-key\" = \"k\\\"ey\", b = \"c\"", "\"x-api-key\" = \"*****\", b = \"c\""),
            ("my_token=\"t\"", "my_token=\"*\""),
            ("cookie = \"never closed", "cookie = \"************"),
            ("password = \"\"\"first", "password = \"\"\"*****"),
            ("password = \"\"", "password = \"\""),
            ("password = \"ü\"", "password = \"**\""),
            ("secret =", "secret ="),
            ("token", "token"),
            ("token = 5", "token = 5"),
            ("# no cookie here, a = \"b\"", "# no cookie here, a = \"b\""),
            ("ends = \"\\", "ends = \"\\"),
            ("token = \"\\", "token = \"*"),
        ] {
            assert_eq!(redact(line), shown);
            assert_eq!(redact(line).len(), line.len());
        }
    }
}

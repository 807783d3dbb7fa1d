//! The secrets that seal affinity cookies.

use std::fmt;
use std::sync::Arc;

/// The secrets of a cookie. The first one seals; all of them open, so that secrets can be rotated.
#[derive(Clone, PartialEq, Eq)]
pub struct CookieSecrets(pub Arc<[[u8; 32]]>);

/// Upper bound on the secrets in one file.
const MAX_SECRETS: usize = 16;

impl CookieSecrets {
    /// Parses one secret of 64 hexadecimal digits per line; skips empty lines and lines that begin
    /// with `#`.
    ///
    /// # Errors
    /// A message without any part of a secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut secrets = Vec::new();
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if !line.is_empty() && !line.starts_with('#') {
                let secret = parse_secret(line);
                secrets.push(secret.ok_or_else(|| format!("has no secret in line {number}"))?);
            }
        }
        match secrets.len() {
            0 => Err("holds no secret".to_owned()),
            1..=MAX_SECRETS => Ok(Self(secrets.into())),
            _ => Err(format!("holds more than {MAX_SECRETS} secrets")),
        }
    }

    /// The text that [`Self::parse`] reads.
    pub fn to_text(&self) -> String {
        let line = |secret: &[u8; 32]| {
            let digits = secret.iter().map(|byte| format!("{byte:02x}"));
            digits.chain(["\n".to_owned()]).collect::<String>()
        };
        self.0.iter().map(line).collect()
    }
}

fn parse_secret(line: &str) -> Option<[u8; 32]> {
    let digits = line.as_bytes();
    let mut secret = [0; 32];
    if digits.len() != 2 * secret.len() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(secret)
}

impl fmt::Debug for CookieSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_file_with_invalid_line_is_rejected() {
        let (first, second) = ("0a".repeat(32), "FF".repeat(32));
        let secrets =
            CookieSecrets::parse(&format!("# new\n{first}\n\n{second}\r\n")).expect("secrets");
        assert_eq!(*secrets.0, [[10; 32], [255; 32]]);
        assert_eq!(CookieSecrets::parse(&secrets.to_text()), Ok(secrets.clone()));
        for (text, message) in [
            (String::new(), "holds no secret"),
            (first[..40].to_owned(), "has no secret in line 1"),
            (format!("{first}\n{}", &second[..63]), "has no secret in line 2"),
            (format!("{}\n", "xy".repeat(32)), "has no secret in line 1"),
            (format!("{first}\n").repeat(17), "holds more than 16 secrets"),
        ] {
            assert_eq!(CookieSecrets::parse(&text).err().as_deref(), Some(message));
        }
        assert!(!format!("{secrets:?}").contains("10"), "{secrets:?}");
    }
}

//! Validation of DNS names (RFC 1035, 2.3.4).

/// Longest name without a trailing dot, in bytes.
const MAX_NAME_BYTES: usize = 253;

/// Longest label, in bytes.
const MAX_LABEL_BYTES: usize = 63;

/// The reason why a text is no valid DNS name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsNameError {
    Empty,
    /// The length of the name, which exceeds the limit.
    NameTooLong(usize),
    /// The label that exceeds the limit.
    LabelTooLong(String),
    /// An empty label between two dots or at the start.
    EmptyLabel,
    /// A character that no host or service name may contain.
    InvalidCharacter(char),
    /// The label that begins or ends with a hyphen.
    MisplacedHyphen(String),
}

/// Normalises a name for lookups: lower case; a trailing dot stays.
///
/// # Errors
/// The first violation as a [`DnsNameError`].
pub fn normalise_dns_name(text: &str) -> Result<String, DnsNameError> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_suffix('.').unwrap_or(&lower);
    if bare.is_empty() {
        return Err(DnsNameError::Empty);
    }
    let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some(bad) = bare.chars().find(|&c| !is_valid(c)) {
        return Err(DnsNameError::InvalidCharacter(bad));
    }
    if bare.len() > MAX_NAME_BYTES {
        return Err(DnsNameError::NameTooLong(bare.len()));
    }
    for label in bare.split('.') {
        if label.is_empty() {
            return Err(DnsNameError::EmptyLabel);
        }
        if label.len() > MAX_LABEL_BYTES {
            return Err(DnsNameError::LabelTooLong(label.to_owned()));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(DnsNameError::MisplacedHyphen(label.to_owned()));
        }
    }
    Ok(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_label_lengths_follow_rfc_1035() {
        assert_eq!(normalise_dns_name("Web.Example.").as_deref(), Ok("web.example."));
        assert_eq!(normalise_dns_name("_http._tcp.web").as_deref(), Ok("_http._tcp.web"));
        let label = "a".repeat(63);
        let long = [label.as_str(); 4].join(".");
        assert!(normalise_dns_name(&long[..253]).is_ok());
        assert_eq!(normalise_dns_name(&long[..254]), Err(DnsNameError::NameTooLong(254)));
        assert!(normalise_dns_name(&label).is_ok());
        assert!(matches!(
            normalise_dns_name(&format!("{label}a")),
            Err(DnsNameError::LabelTooLong(_))
        ));
        assert_eq!(normalise_dns_name("a..b"), Err(DnsNameError::EmptyLabel));
        assert_eq!(normalise_dns_name(".a"), Err(DnsNameError::EmptyLabel));
        assert_eq!(normalise_dns_name("."), Err(DnsNameError::Empty));
        assert_eq!(normalise_dns_name("a b"), Err(DnsNameError::InvalidCharacter(' ')));
        assert!(matches!(normalise_dns_name("-a.b"), Err(DnsNameError::MisplacedHyphen(_))));
    }
}

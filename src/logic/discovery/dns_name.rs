//! Which texts can be names in DNS (RFC 1035 2.3.4).

/// Longest name, without the dot at its end.
const MAX_NAME_BYTES: usize = 253;

/// Longest part between two dots.
const MAX_LABEL_BYTES: usize = 63;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsNameError {
    Empty,
    /// It has more bytes than a name may have.
    NameTooLong(usize),
    /// This part has more bytes than one may have.
    LabelTooLong(String),
    /// There is nothing between two dots, or before the first one.
    EmptyLabel,
    /// This character cannot be in the name of a host or a service.
    InvalidCharacter(char),
    /// This part begins or ends with `-`.
    MisplacedHyphen(String),
}

/// Brings a name into the form in which it is looked up: lower case; a dot at the end stays.
///
/// # Errors
/// [`NameError`] says what it is not.
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

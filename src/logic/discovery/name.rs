//! Which texts can be names in DNS (RFC 1035 2.3.4).

/// Longest name, without the dot at its end.
const NAME_BYTES: usize = 253;

/// Longest part between two dots.
const LABEL_BYTES: usize = 63;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// There is nothing.
    Empty,
    /// It has more bytes than a name may have.
    TooLong(usize),
    /// This part has more bytes than one may have.
    LongLabel(String),
    /// There is nothing between two dots, or before the first one.
    EmptyLabel,
    /// This character cannot be in the name of a host or a service.
    Character(char),
    /// This part begins or ends with `-`.
    Hyphen(String),
}

/// Brings a name into the form in which it is looked up: lower case; a dot at the end stays.
///
/// # Errors
/// [`NameError`] says what it is not.
pub fn check_name(text: &str) -> Result<String, NameError> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_suffix('.').unwrap_or(&lower);
    if bare.is_empty() {
        return Err(NameError::Empty);
    }
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some(bad) = bare.chars().find(|&c| !is_fit(c)) {
        return Err(NameError::Character(bad));
    }
    if bare.len() > NAME_BYTES {
        return Err(NameError::TooLong(bare.len()));
    }
    for label in bare.split('.') {
        if label.is_empty() {
            return Err(NameError::EmptyLabel);
        }
        if label.len() > LABEL_BYTES {
            return Err(NameError::LongLabel(label.to_owned()));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(NameError::Hyphen(label.to_owned()));
        }
    }
    Ok(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_sizes_of_rfc_1035() {
        assert_eq!(check_name("Web.Example.").as_deref(), Ok("web.example."));
        assert_eq!(check_name("_http._tcp.web").as_deref(), Ok("_http._tcp.web"));
        let label = "a".repeat(63);
        let long = [label.as_str(); 4].join(".");
        assert!(check_name(&long[..253]).is_ok());
        assert_eq!(check_name(&long[..254]), Err(NameError::TooLong(254)));
        assert!(check_name(&label).is_ok());
        assert!(matches!(check_name(&format!("{label}a")), Err(NameError::LongLabel(_))));
        assert_eq!(check_name("a..b"), Err(NameError::EmptyLabel));
        assert_eq!(check_name(".a"), Err(NameError::EmptyLabel));
        assert_eq!(check_name("."), Err(NameError::Empty));
        assert_eq!(check_name("a b"), Err(NameError::Character(' ')));
        assert!(matches!(check_name("-a.b"), Err(NameError::Hyphen(_))));
    }
}

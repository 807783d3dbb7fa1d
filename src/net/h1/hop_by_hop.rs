//! Fields that belong to one connection and are not forwarded (RFC 9110 7.6.1).

use http::header::{CONNECTION, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use smallvec::SmallVec;

/// The field names that the Connection fields of a message nominate (RFC 9110 7.6.1).
#[derive(Debug, Default)]
pub struct ConnectionOptions<'a> {
    names: SmallVec<[&'a str; 4]>,
}

impl<'a> ConnectionOptions<'a> {
    /// Adds the options of one field value.
    pub fn add(&mut self, value: &'a str) {
        self.names.extend(value.split(',').map(str::trim).filter(|name| !name.is_empty()));
    }

    /// All options of a message; a value that is not text adds none.
    pub fn from_headers(headers: &'a HeaderMap) -> Self {
        let mut options = Self::default();
        for value in headers.get_all(CONNECTION) {
            if let Ok(text) = value.to_str() {
                options.add(text);
            }
        }
        options
    }

    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.names.iter().copied()
    }

    /// Whether the message nominates `name`, in any case.
    pub fn has_option(&self, name: &str) -> bool {
        self.names.iter().any(|nominated| nominated.eq_ignore_ascii_case(name))
    }
}

/// Whether a field belongs to the connection and not to the message.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    if *name == CONNECTION || *name == TRANSFER_ENCODING || *name == UPGRADE {
        return true;
    }
    if *name == TE || *name == TRAILER {
        return true;
    }
    matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

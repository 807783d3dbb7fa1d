//! Header fields by which proxies inform endpoints about a client.
//!
//! Applications trust many of them as set by their proxy. So the whole family is removed from
//! requests of peers that are not trusted proxies.

use http::header::HeaderName;

/// Prefixes of the family.
const PREFIXES: [&str; 4] = ["x-forwarded-", "x-original-", "x-rewrite-", "x-gapless-"];

/// Whether the field belongs to the family. Applications may treat `_` like `-`.
pub fn is_identity_field(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Nearly every other name ends here.
    if !name.starts_with('x') {
        return name == "forwarded";
    }
    if name.contains('_') {
        return has_family_name(&name.replace('_', "-"));
    }
    has_family_name(name)
}

/// Whether gapless generates the field, in either spelling.
pub fn is_generated(name: &HeaderName) -> bool {
    let name = name.as_str();
    if !name.starts_with("x") {
        return name == "forwarded";
    }
    if name.contains('_') {
        has_generated_name(&name.replace('_', "-"))
    } else {
        has_generated_name(name)
    }
}

fn has_generated_name(name: &str) -> bool {
    matches!(
        name,
        "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "x-forwarded-client-cert"
    )
}

fn has_family_name(name: &str) -> bool {
    name == "x-real-ip" || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn family_includes_underscores_and_excludes_other_names() {
        let is_identity = |name| is_identity_field(&HeaderName::from_static(name));
        for name in [
            "forwarded",
            "x-real-ip",
            "x_real_ip",
            "x-forwarded-port",
            "x-forwarded_user",
            "x-forwarded-tls-client-cert",
            "x-original-url",
            "x-rewrite-url",
            "x-gapless-endpoint",
        ] {
            assert!(is_identity(name), "{name}");
        }
        for name in ["forwarded", "x_forwarded_for", "x-forwarded_client-cert"] {
            assert!(is_generated(&HeaderName::from_static(name)), "{name}");
        }
        assert!(!is_generated(&HeaderName::from_static("x-forwarded-port")));
        for name in ["x-forwarded", "x-request-id", "host", "forwarded-by", "x-realip"] {
            assert!(!is_identity(name), "{name}");
        }
    }
}

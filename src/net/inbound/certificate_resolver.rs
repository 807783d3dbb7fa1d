//! Chooses a listener's certificate by the client's server name.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::Error;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use crate::logic::model::upstream_protocol::CertificateAndKey;

/// Certificates for one name, with different key types.
type CertifiedKeys = Vec<Arc<CertifiedKey>>;

/// The certificates of a listener, by DNS name.
#[derive(Debug)]
pub(super) struct CertificateResolver {
    /// The certificate for unknown names.
    default_keys: CertifiedKeys,
    exact: HashMap<Box<str>, CertifiedKeys>,
    /// By the part after `*.`.
    wildcard: HashMap<Box<str>, CertifiedKeys>,
}

impl CertificateResolver {
    /// Parses certificates and keys.
    ///
    /// # Errors
    /// When one cannot be parsed, or there is none.
    pub(super) fn new(
        certificates: &[CertificateAndKey],
        provider: &CryptoProvider,
    ) -> Result<Self, Error> {
        let mut resolver =
            Self { default_keys: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new() };
        for certificate in certificates {
            let certified_key = Arc::new(load_certified_key(certificate, provider)?);
            if resolver.default_keys.is_empty() {
                resolver.default_keys.push(Arc::clone(&certified_key));
            }
            for name in dns_names(&certified_key)? {
                let list = match name.strip_prefix("*.") {
                    Some(parent) => resolver.wildcard.entry(parent.into()).or_default(),
                    None => resolver.exact.entry(name.into()).or_default(),
                };
                list.push(Arc::clone(&certified_key));
            }
        }
        if resolver.default_keys.is_empty() {
            Err(Error::NoCertificatesPresented)
        } else {
            Ok(resolver)
        }
    }

    /// The certificates for `name`, which is in lower case. A wildcard stands for one label
    /// (RFC 9525 6.3).
    fn find(&self, name: &str) -> Option<&CertifiedKeys> {
        self.exact.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.wildcard.get(parent)
        })
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let matched = hello.server_name().and_then(|name| self.find(name));
        let keys = matched.unwrap_or(&self.default_keys);
        let schemes = hello.signature_schemes();
        let supported = keys.iter().find(|one| one.key.choose_scheme(schemes).is_some());
        supported.or_else(|| keys.first()).map(Arc::clone)
    }
}

fn load_certified_key(
    certificate: &CertificateAndKey,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Error> {
    let unreadable = |_| Error::General("a certificate or key cannot be read".to_owned());
    let chain = CertificateDer::pem_slice_iter(&certificate.chain);
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(&certificate.key).map_err(unreadable)?;
    CertifiedKey::from_der(chain, key, provider)
}

/// The DNS names of a certificate, in lower case.
fn dns_names(certified_key: &CertifiedKey) -> Result<Vec<String>, Error> {
    let end_entity = certified_key.end_entity_cert()?;
    let parse_error = |error: webpki::Error| Error::General(error.to_string());
    let parsed = EndEntityCert::try_from(end_entity).map_err(parse_error)?;
    Ok(parsed.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

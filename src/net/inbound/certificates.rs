//! Which certificate answers which name.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::Error;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use crate::logic::speech::ClientCertificate;

/// Certificates with the same name: one is chosen whose key the client can check.
type Same = Vec<Arc<CertifiedKey>>;

/// The certificates of a listener by their names.
#[derive(Debug)]
pub(super) struct Certificates {
    /// Answers where no name matches.
    first: Same,
    exact: HashMap<Box<str>, Same>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Same>,
}

impl Certificates {
    /// Reads certificates and keys.
    ///
    /// # Errors
    /// When one cannot be read, or there is none.
    pub(super) fn new(
        listed: &[ClientCertificate],
        provider: &CryptoProvider,
    ) -> Result<Self, Error> {
        let mut made = Self { first: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new() };
        for one in listed {
            let certified = Arc::new(certified(one, provider)?);
            if made.first.is_empty() {
                made.first.push(Arc::clone(&certified));
            }
            for name in names(&certified)? {
                let list = match name.strip_prefix("*.") {
                    Some(parent) => made.wildcard.entry(parent.into()).or_default(),
                    None => made.exact.entry(name.into()).or_default(),
                };
                list.push(Arc::clone(&certified));
            }
        }
        if made.first.is_empty() { Err(Error::NoCertificatesPresented) } else { Ok(made) }
    }

    /// Those for `name`, which is in lower case: a wildcard stands for one label (RFC 9525 6.3).
    fn named(&self, name: &str) -> Option<&Same> {
        self.exact.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.wildcard.get(parent)
        })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.named(name));
        let same = named.unwrap_or(&self.first);
        let schemes = hello.signature_schemes();
        let checkable = same.iter().find(|one| one.key.choose_scheme(schemes).is_some());
        checkable.or_else(|| same.first()).map(Arc::clone)
    }
}

fn certified(one: &ClientCertificate, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let broken = |_| Error::General("a certificate or key cannot be read".to_owned());
    let chain = CertificateDer::pem_slice_iter(&one.chain);
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(broken)?;
    let key = PrivateKeyDer::from_pem_slice(&one.key).map_err(broken)?;
    CertifiedKey::from_der(chain, key, provider)
}

/// The DNS names that a certificate was issued for, in lower case.
fn names(certified: &CertifiedKey) -> Result<Vec<String>, Error> {
    let end_entity = certified.end_entity_cert()?;
    let broken = |error: webpki::Error| Error::General(error.to_string());
    let parsed = EndEntityCert::try_from(end_entity).map_err(broken)?;
    Ok(parsed.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

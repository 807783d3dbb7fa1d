//! The certificate that every proxy presents, and the TLS settings of the clients that the bench
//! starts itself.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, version};

use crate::certificates;
use crate::pki::{CertificateAuthority, CertificateValidity};

/// Writes `server.pem`, `server.key`, and both in one file, as haproxy requires.
pub(crate) fn write_files(dir: &Path) -> io::Result<Arc<ClientConfig>> {
    let authority = CertificateAuthority::new("gapless data-plane bench");
    let validity = CertificateValidity::Current;
    let identity = certificates::write_identity(dir, "server", &authority, validity)?;
    let chain_and_key_pem = identity.chain_pem + &identity.key_pem;
    fs::write(dir.join("server-with-key.pem"), chain_and_key_pem)?;
    client_config(&authority)
}

/// TLS 1.3 with the one key exchange that every proxy supports and without resumption, so that the
/// work is the same for all proxies.
fn client_config(authority: &CertificateAuthority) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let der = CertificateDer::from_pem_slice(authority.pem().as_bytes());
    roots.add(der.map_err(io::Error::other)?).map_err(io::Error::other)?;
    let provider = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

//! Certificates, valid and invalid, made for each test.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, version};

pub(crate) struct CertificateAuthority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
}

/// The validity period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateValidity {
    Current,
    Expired,
    NotYetValid,
}

/// Whether a server asks for a certificate.
pub(crate) enum ClientAuth<'a> {
    NotRequested,
    Required(&'a CertificateAuthority),
}

impl CertificateAuthority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A server's certificate for these names and addresses.
    pub(crate) fn server_certificate(
        &self,
        names: &[&str],
        valid: CertificateValidity,
    ) -> Identity {
        self.issue(names, ExtendedKeyUsagePurpose::ServerAuth, valid)
    }

    pub(crate) fn client_certificate(&self, name: &str) -> Identity {
        self.issue(&[name], ExtendedKeyUsagePurpose::ClientAuth, CertificateValidity::Current)
    }

    fn issue(
        &self,
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
        valid: CertificateValidity,
    ) -> Identity {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![usage];
        let (from, until) = match valid {
            CertificateValidity::Current => (2020, 2900),
            CertificateValidity::Expired => (2020, 2025),
            CertificateValidity::NotYetValid => (2100, 2900),
        };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { chain_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("a certificate");
        roots.add(der).expect("an authority");
        roots
    }
}

impl Identity {
    /// What a server needs to show it.
    pub(crate) fn server_config(
        &self,
        clients: &ClientAuth<'_>,
        alpn: &[&str],
    ) -> Arc<ServerConfig> {
        let versions = [&version::TLS13, &version::TLS12];
        self.server_config_with_versions(clients, alpn, &versions)
    }

    /// The same with chosen versions of TLS.
    pub(crate) fn server_config_with_versions(
        &self,
        clients: &ClientAuth<'_>,
        alpn: &[&str],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .expect("known versions");
        let builder = match clients {
            ClientAuth::NotRequested => builder.with_no_client_auth(),
            ClientAuth::Required(authority) => {
                let roots = Arc::new(authority.roots());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let chain = CertificateDer::pem_slice_iter(self.chain_pem.as_bytes());
        let chain = chain.collect::<Result<_, _>>().expect("a chain");
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("a key");
        let mut config = builder.with_single_cert(chain, key).expect("a certificate and its key");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

//! Checks of TLS settings and of their certificate and key files.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use http::uri::Authority;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};

use super::validator::Validator;
use crate::config::diagnostics::Problem;
use crate::config::file::{Located, Tls};
use crate::config::referenced_file::ReferencedFile;
use crate::config::units;
use crate::logic::model::upstream_protocol::{CertificateAndKey, UpstreamTls};

/// Size limit of a file of certificates or keys.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

const READABLE_FILE_HELP: &str =
    "name a file that can be read; a relative path begins where the configuration file is";

impl Validator<'_> {
    /// The TLS settings of a client; `host` is the server name where `options` have none.
    pub(super) fn tls_client(
        &mut self,
        options: &Tls,
        host: Option<&Located<String>>,
        alpn: &[&[u8]],
    ) -> Arc<UpstreamTls> {
        let verify = self.bool_or(&options.verify, true);
        if let Some(key) = options.verify.as_ref().filter(|_| !verify) {
            let problem = Problem::new(
                "the certificate of an endpoint is not checked",
                "remove `verify`, and set `ca_file` if the issuer is your own",
            );
            self.diagnostics.warning(&key.span, problem);
            if let Some(ca_file) = &options.ca_file {
                let help = "remove one of them";
                let problem = Problem::new("`ca_file` has no meaning with `verify = false`", help);
                self.diagnostics
                    .error(&ca_file.span, problem)
                    .add_related(&key.span, "nothing is checked");
            }
        }
        Arc::new(UpstreamTls {
            server_name: self.server_name(options, host),
            roots: options.ca_file.as_ref().and_then(|path| self.trusted_roots(path)),
            client_certificate: self.client_certificate(options),
            is_verification_enabled: verify,
            alpn: alpn.iter().map(|name| name.to_vec()).collect(),
        })
    }

    fn server_name(&mut self, options: &Tls, host: Option<&Located<String>>) -> Option<String> {
        if let Some(name) = &options.server_name {
            if ServerName::try_from(name.value.as_str()).is_err() {
                let message = format!("`{}` cannot be the name in a certificate", name.value);
                let help = "write a name such as \"web.internal\", or an IP address";
                self.diagnostics.error(&name.span, Problem::new(message, help));
            }
            return Some(name.value.clone());
        }
        // An invalid host is reported by its own check.
        let host = host?;
        let authority = host.value.parse::<Authority>().ok()?;
        if ServerName::try_from(authority.host().trim_matches(['[', ']'])).is_err() {
            let message = format!("`{}` cannot be the name in a certificate", authority.host());
            let help = "add `server_name` to `tls`, with the name that is in it";
            self.diagnostics.error(&host.span, Problem::new(message, help));
        }
        None
    }

    /// The content of a file of CA certificates, in PEM.
    pub(in crate::config::validate) fn trusted_roots(
        &mut self,
        path: &Located<String>,
    ) -> Option<Arc<[u8]>> {
        let (pem, certificates) = self.certificates(path)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            if let Err(error) = roots.add(certificate) {
                let message = format!("`{}` has an invalid certificate: {error}", path.value);
                let help = "name a file with CA certificates in PEM";
                self.diagnostics.error(&path.span, Problem::new(message, help));
                return None;
            }
        }
        Some(pem)
    }

    fn client_certificate(&mut self, options: &Tls) -> Option<CertificateAndKey> {
        let (chain_file, key_file) = match (&options.certificate, &options.key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => return None,
            (Some(only), None) => {
                let help = "add `key`, the file with its private key";
                self.diagnostics
                    .error(&only.span, Problem::new("`certificate` needs its `key`", help));
                return None;
            }
            (None, Some(only)) => {
                let help = "add `certificate`, the file with its certificate";
                self.diagnostics
                    .error(&only.span, Problem::new("`key` needs its `certificate`", help));
                return None;
            }
        };
        self.key_pair(chain_file, key_file)
    }

    /// A certificate and its matching key, in PEM.
    pub(in crate::config::validate) fn key_pair(
        &mut self,
        chain_file: &Located<String>,
        key_file: &Located<String>,
    ) -> Option<CertificateAndKey> {
        let chain = self.certificates(chain_file);
        let key = self.private_key(key_file);
        let ((chain_pem, chain), (key_pem, key)) = (chain?, key?);
        let problem = match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
            Ok(_) => {
                return Some(CertificateAndKey { chain: chain_pem, key: key_pem });
            }
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Problem::new(
                format!("`{}` is not the key of `{}`", key_file.value, chain_file.value),
                "name a matching pair; the certificate of the key is the first one in its file",
            ),
            Err(error) => Problem::new(
                format!("`{}` cannot be used with its certificate: {error}", key_file.value),
                "give an RSA, ECDSA or Ed25519 key in PEM",
            ),
        };
        self.diagnostics
            .error(&key_file.span, problem)
            .add_related(&chain_file.span, "the certificate");
        None
    }

    fn certificates(
        &mut self,
        path: &Located<String>,
    ) -> Option<(Arc<[u8]>, Vec<CertificateDer<'static>>)> {
        let pem = self.read_file(path)?;
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let message = match read {
            Ok(certificates) if !certificates.is_empty() => return Some((pem, certificates)),
            Ok(_) => format!("`{}` holds no certificate", path.value),
            Err(error) => format!("`{}` cannot be read as PEM: {error}", path.value),
        };
        let help = "give a file with `-----BEGIN CERTIFICATE-----` in it";
        self.diagnostics.error(&path.span, Problem::new(message, help));
        None
    }

    fn private_key(
        &mut self,
        path: &Located<String>,
    ) -> Option<(Arc<[u8]>, PrivateKeyDer<'static>)> {
        let pem = self.read_file(path)?;
        match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(key) => Some((pem, key)),
            Err(_) => {
                let problem = Problem::new(
                    format!("`{}` holds no private key", path.value),
                    "give a file with `-----BEGIN PRIVATE KEY-----` in it, without a passphrase",
                );
                self.diagnostics.error(&path.span, problem);
                None
            }
        }
    }

    /// The content of a file that the configuration names; at most [`MAX_FILE_BYTES`].
    pub(in crate::config::validate) fn read_file(
        &mut self,
        path: &Located<String>,
    ) -> Option<Arc<[u8]>> {
        self.read_file_within(path, MAX_FILE_BYTES)
    }

    /// The content of a file that the configuration names; at most `max_bytes`.
    pub(in crate::config::validate) fn read_file_within(
        &mut self,
        path: &Located<String>,
        max_bytes: u64,
    ) -> Option<Arc<[u8]>> {
        let full_path = self.base_dir.join(&path.value);
        let file = ReferencedFile::stat(&full_path);
        self.diagnostics.add_file(file);
        let mut bytes = Vec::new();
        let read = File::open(&full_path)
            .and_then(|file| file.take(max_bytes + 1).read_to_end(&mut bytes))
            .and_then(|length| {
                if length as u64 <= max_bytes {
                    return Ok(());
                }
                let limit = units::format_size(max_bytes);
                Err(io::Error::other(format!("it is larger than {limit}")))
            });
        match read {
            Ok(()) => Some(bytes.into()),
            Err(error) => {
                let message = format!("cannot read `{}`: {error}", full_path.display());
                self.diagnostics.error(&path.span, Problem::new(message, READABLE_FILE_HELP));
                None
            }
        }
    }
}

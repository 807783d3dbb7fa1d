//! The endpoints' certificates: one that does, and one that has expired.

use std::fs;
use std::io;
use std::path::Path;

use tokio_rustls::TlsAcceptor;

use crate::pki::{CertificateAuthority, CertificateValidity, ClientAuth, Identity};

/// The name that all of them have.
const SERVER_NAME: &str = "bench.example";

/// The files' names, without what they end with.
const CERTIFICATE_FILES: [(&str, CertificateValidity); 2] =
    [("good", CertificateValidity::Current), ("expired", CertificateValidity::Expired)];

/// Writes an authority's certificate as `ca.pem`, and those that it issued with their keys.
pub(crate) fn write_files(dir: &Path) -> io::Result<()> {
    let authority = CertificateAuthority::new("gapless detection bench");
    fs::write(dir.join("ca.pem"), authority.pem())?;
    for (file, valid) in CERTIFICATE_FILES {
        let identity = authority.server_certificate(&[SERVER_NAME], valid);
        fs::write(dir.join(file).with_extension("pem"), identity.chain_pem)?;
        fs::write(dir.join(file).with_extension("key"), identity.key_pem)?;
    }
    Ok(())
}

/// What an endpoint needs to show the good one, and the expired one.
pub(crate) fn read_acceptors(dir: &Path) -> io::Result<[TlsAcceptor; 2]> {
    let [good, expired] = CERTIFICATE_FILES.map(|(file, _)| {
        let chain_pem = fs::read_to_string(dir.join(file).with_extension("pem"))?;
        let key_pem = fs::read_to_string(dir.join(file).with_extension("key"))?;
        let config = Identity { chain_pem, key_pem }.server_config(&ClientAuth::NotRequested, &[]);
        Ok::<_, io::Error>(TlsAcceptor::from(config))
    });
    Ok([good?, expired?])
}

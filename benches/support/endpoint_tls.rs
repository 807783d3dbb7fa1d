//! The certificates of the endpoints: a valid one, and an expired one.

use std::fs;
use std::io;
use std::path::Path;

use tokio_rustls::TlsAcceptor;

use crate::certificates;
use crate::pki::{CertificateAuthority, CertificateValidity, ClientAuth, Identity};

/// The names of the files, without extension.
const CERTIFICATE_FILES: [(&str, CertificateValidity); 2] =
    [("good", CertificateValidity::Current), ("expired", CertificateValidity::Expired)];

/// Writes the certificate of an authority as `ca.pem`, and those that it issues with their keys.
pub(crate) fn write_files(dir: &Path) -> io::Result<()> {
    let authority = CertificateAuthority::new("gapless detection bench");
    fs::write(dir.join("ca.pem"), authority.pem())?;
    for (file, validity) in CERTIFICATE_FILES {
        certificates::write_identity(dir, file, &authority, validity)?;
    }
    Ok(())
}

/// Acceptors that present the valid certificate and the expired one, in this order.
pub(crate) fn read_acceptors(dir: &Path) -> io::Result<[TlsAcceptor; 2]> {
    let [valid, expired] = CERTIFICATE_FILES.map(|(file, _)| {
        let chain_pem = fs::read_to_string(dir.join(file).with_extension("pem"))?;
        let key_pem = fs::read_to_string(dir.join(file).with_extension("key"))?;
        let config = Identity { chain_pem, key_pem }.server_config(&ClientAuth::NotRequested, &[]);
        Ok::<_, io::Error>(TlsAcceptor::from(config))
    });
    Ok([valid?, expired?])
}

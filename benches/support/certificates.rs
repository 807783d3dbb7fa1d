//! Certificate files for the servers of a bench.

use std::fs;
use std::io;
use std::path::Path;

use crate::pki::{CertificateAuthority, CertificateValidity, Identity};

/// The name in every certificate.
pub(crate) const SERVER_NAME: &str = "bench.example";

/// Issues a certificate and writes it with its key into `dir`, as `file`.pem and `file`.key.
pub(crate) fn write_identity(
    dir: &Path,
    file: &str,
    authority: &CertificateAuthority,
    validity: CertificateValidity,
) -> io::Result<Identity> {
    let identity = authority.server_certificate(&[SERVER_NAME], validity);
    fs::write(dir.join(file).with_extension("pem"), &identity.chain_pem)?;
    fs::write(dir.join(file).with_extension("key"), &identity.key_pem)?;
    Ok(identity)
}

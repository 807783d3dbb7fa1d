//! Listeners: TLS, HTTP/2 and the PROXY protocol, with honest and hostile clients.

mod certificate_reload;
mod drain;
mod extended_connect;
mod http2;
mod http2_attacks;
mod http2_conformance;
mod http2_frames;
mod proxy_protocol;
mod replacement_under_load;
mod secrets;
mod tls;
mod tls_client;

use std::path::Path;

use tempfile::TempDir;

use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::pki::{CertificateAuthority, Identity};

/// The configuration with these lines in its listener.
fn config_text(config: &ConfigBuilder, endpoint: &TestEndpoint, listener: &str) -> String {
    let cleartext_listener = "[[listen]]\naddress = \"127.0.0.1:0\"\n";
    let text = config.clone().zone("here/a", &[endpoint.address()]).text();
    assert!(text.contains(cleartext_listener));
    text.replacen(cleartext_listener, &format!("{cleartext_listener}{listener}\n"), 1)
}

/// Writes a certificate and its key as `name.pem` and `name.key`.
fn write_identity(directory: &Path, name: &str, identity: &Identity) {
    for (kind, pem) in [("pem", &identity.chain_pem), ("key", &identity.key_pem)] {
        let temporary = directory.join(format!("{name}.{kind}.new"));
        std::fs::write(&temporary, pem).expect("written");
        std::fs::rename(&temporary, directory.join(format!("{name}.{kind}"))).expect("renamed");
    }
}

/// A listener's table for these certificate files, with further lines.
fn tls_listener_table(names: &[&str], lines: &str) -> String {
    let entry = |name: &&str| format!("{{ certificate = \"{name}.pem\", key = \"{name}.key\" }}");
    let list: Vec<String> = names.iter().map(entry).collect();
    format!("[listen.tls]\ncertificates = [{}]\n{lines}\n", list.join(", "))
}

/// Starts with files in a directory.
fn start_with_files(directory: TempDir, text: &str) -> Gapless {
    let file = directory.path().join("gapless.toml");
    std::fs::write(&file, text).expect("written");
    let gapless = Gapless::start_with_file(directory, file);
    gapless.wait_all_up();
    gapless
}

/// A proxy in cleartext.
fn start_cleartext(config: &ConfigBuilder, listener: &str) -> (TestEndpoint, Gapless) {
    let endpoint = TestEndpoint::start("one");
    let directory = TempDir::new().expect("a directory");
    let gapless = start_with_files(directory, &config_text(config, &endpoint, listener));
    (endpoint, gapless)
}

/// A proxy with a certificate for `a.example`, and its issuer.
fn start_tls(config: &ConfigBuilder, lines: &str) -> (TestEndpoint, Gapless, CertificateAuthority) {
    let authority = CertificateAuthority::new("authority");
    let endpoint = TestEndpoint::start("one");
    let directory = TempDir::new().expect("a directory");
    write_identity(
        directory.path(),
        "a",
        &authority
            .server_certificate(&["a.example"], crate::support::pki::CertificateValidity::Current),
    );
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("written");
    let gapless = start_with_files(
        directory,
        &config_text(config, &endpoint, &tls_listener_table(&["a"], lines)),
    );
    (endpoint, gapless, authority)
}

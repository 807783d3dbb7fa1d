//! Where clients connect: TLS, HTTP/2 and the PROXY protocol, with real clients and with bad ones.

mod certificates;
mod connect;
mod drain;
mod frames;
mod http2;
mod injection;
mod proxied;
mod replaced;
mod rules;
mod secrets;
mod secure;
mod tls;

use std::path::Path;

use tempfile::TempDir;

use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;
use crate::support::pki::{Authority, Identity};

/// The configuration with these lines in its listener.
fn text(config: &Config, endpoint: &Endpoint, listener: &str) -> String {
    let plain = "[[listen]]\naddress = \"127.0.0.1:0\"\n";
    let text = config.clone().zone("here/a", &[endpoint.address()]).text();
    assert!(text.contains(plain));
    text.replacen(plain, &format!("{plain}{listener}\n"), 1)
}

/// Writes a certificate and its key as `name.pem` and `name.key`.
fn put(directory: &Path, name: &str, identity: &Identity) {
    for (kind, pem) in [("pem", &identity.chain_pem), ("key", &identity.key_pem)] {
        let aside = directory.join(format!("{name}.{kind}.new"));
        std::fs::write(&aside, pem).expect("written");
        std::fs::rename(&aside, directory.join(format!("{name}.{kind}"))).expect("renamed");
    }
}

/// A listener's table of certificates that were put there, with further lines.
fn listen_tls(names: &[&str], lines: &str) -> String {
    let one = |name: &&str| format!("{{ certificate = \"{name}.pem\", key = \"{name}.key\" }}");
    let list: Vec<String> = names.iter().map(one).collect();
    format!("[listen.tls]\ncertificates = [{}]\n{lines}\n", list.join(", "))
}

/// Starts with files in the directory.
fn start(directory: TempDir, text: &str) -> Gapless {
    let file = directory.path().join("gapless.toml");
    std::fs::write(&file, text).expect("written");
    let gapless = Gapless::start_with(directory, file);
    gapless.wait_all_up();
    gapless
}

/// A proxy in cleartext.
fn plain(config: &Config, listener: &str) -> (Endpoint, Gapless) {
    let endpoint = Endpoint::start("one");
    let directory = TempDir::new().expect("a directory");
    let gapless = start(directory, &text(config, &endpoint, listener));
    (endpoint, gapless)
}

/// A proxy with a certificate for `a.example`, and who issued it.
fn encrypted(config: &Config, lines: &str) -> (Endpoint, Gapless, Authority) {
    let authority = Authority::new("authority");
    let endpoint = Endpoint::start("one");
    let directory = TempDir::new().expect("a directory");
    put(directory.path(), "a", &authority.server(&["a.example"], crate::support::pki::Valid::Now));
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("written");
    let gapless = start(directory, &text(config, &endpoint, &listen_tls(&["a"], lines)));
    (endpoint, gapless, authority)
}

//! How clients may speak at a listener, and the files that belong to it.

use std::path::Path;

use gapless::config;
use tempfile::TempDir;

use super::{GOOD, line, one};
use crate::support::pki::{Authority, Valid};

const ADDRESS: &str = "address = \"127.0.0.1:18080\"";

/// The good file with these lines in its listener.
fn with(lines: &str) -> String {
    GOOD.replacen(ADDRESS, &format!("{ADDRESS}\n{lines}"), 1)
}

#[track_caller]
fn listen(lines: &str, expected: &str) {
    one(&with(lines), expected);
}

#[test]
fn proxies_are_networks() {
    listen("proxy_protocol = { from = [] }", "4:18 it is not said which proxies may connect");
    listen("proxy_protocol = {}", "| add `from = [\"10.0.0.0/8\"]`");
    listen("proxy_protocol = { from = [\"lb\"] }", "4:28 `lb` is not a network");
    listen(
        "proxy_protocol = { from = [\"10.0.0.1/8\"] }",
        "`10.0.0.1/8` has bits set beyond its first 8 | write it as \"10.0.0.0/8\"",
    );
    listen("proxy_protocol = true", "`proxy_protocol` cannot be the boolean `true`");
    let many = (0..300).map(|n| format!("\"10.0.{}.{}\"", n / 250, n % 250));
    let many = many.collect::<Vec<_>>().join(",");
    listen(
        &format!("proxy_protocol = {{ from = [{many}] }}"),
        "there are more than 256 networks | write larger ones",
    );
    line("[[listen]]", "proxy_protocol = true", "`proxy_protocol` is not known here");
}

#[test]
fn tls_needs_certificates() {
    listen("tls = {}", "4:7 TLS needs a certificate | add `certificates = [");
    listen("tls = { certificates = [] }", "TLS needs a certificate");
    listen("tls = { certificates = [{ key = \"none\" }] }", "`certificate` is missing");
    listen("tls = { certificates = [{ certificate = \"none\" }] }", "`key` is missing");
    listen("tls = true", "`tls` cannot be the boolean `true` | write a table such as");
    listen("http2 = \"yes\"", "`http2` cannot be the string \"yes\"");
}

/// What is wrong with a listener's TLS beside these files.
#[track_caller]
fn tls(directory: &Path, certificates: &str, lines: &str, expected: &str) {
    let text = with(&format!("[listen.tls]\ncertificates = [{certificates}]\n{lines}"));
    let name = directory.join("test.toml").display().to_string();
    let found: Vec<String> = match config::parse(&name, &text) {
        Ok(_) => Vec::new(),
        Err(report) => {
            report.diagnostics.iter().map(|d| format!("{} | {}", d.message, d.mend)).collect()
        }
    };
    match expected {
        "" => assert!(found.is_empty(), "{found:#?}"),
        _ => assert!(found.len() == 1 && found[0].contains(expected), "{found:#?}"),
    }
}

#[test]
fn files_are_read_and_must_fit() {
    let directory = TempDir::new().expect("a directory");
    let put = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).expect("written");
    };
    let authority = Authority::new("authority");
    let [a, b] = ["a.example", "b.example"].map(|name| authority.server(&[name], Valid::Now));
    put("ca.pem", authority.pem());
    put("a.pem", &a.chain_pem);
    put("a.key", &a.key_pem);
    put("b.key", &b.key_pem);
    put("half.pem", &a.chain_pem[..a.chain_pem.len() / 2]);
    let check = |certificates: &str, lines: &str, expected: &str| {
        tls(directory.path(), certificates, lines, expected);
    };
    let good = "{ certificate = \"a.pem\", key = \"a.key\" }";
    check(good, "", "");
    check(good, "client_ca = \"ca.pem\"\nclient_auth = \"optional\"", "");
    check("{ certificate = \"a.pem\", key = \"b.key\" }", "", "`b.key` is not the key to `a.pem`");
    check("{ certificate = \"half.pem\", key = \"a.key\" }", "", "cannot be read as PEM");
    check("{ certificate = \"a.key\", key = \"a.key\" }", "", "`a.key` holds no certificate");
    check("{ certificate = \"a.pem\", key = \"a.pem\" }", "", "`a.pem` holds no private key");
    check("{ certificate = \"no.pem\", key = \"a.key\" }", "", "cannot read `");
    check(&format!("{good}, {good}"), "", "`a.pem` is listed twice | list each certificate once");
    check(good, "client_ca = \"b.key\"", "`b.key` holds no certificate");
    check(good, "client_auth = \"optional\"", "`client_auth` has no meaning without `client_ca`");
    let lines = "client_ca = \"ca.pem\"\nclient_auth = \"maybe\"";
    check(good, lines, "does not say whether clients must have a certificate | write \"required\"");
    check(good, "min_version = \"1.1\"", "`1.1` is not a version of TLS that is spoken here");
    check(good, "handshake_timeout = \"0s\"", "`handshake_timeout` cannot be zero");
}

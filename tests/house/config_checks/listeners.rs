//! Checks of listeners and their files.

use std::path::Path;

use gapless::config;
use tempfile::TempDir;

use super::{VALID_CONFIG, assert_line_diagnostic, assert_one_diagnostic};
use crate::support::pki::{CertificateAuthority, CertificateValidity};

const ADDRESS: &str = "address = \"127.0.0.1:18080\"";

/// The valid file with these lines in its listener.
fn listener_config_with(lines: &str) -> String {
    VALID_CONFIG.replacen(ADDRESS, &format!("{ADDRESS}\n{lines}"), 1)
}

#[track_caller]
fn assert_listener_diagnostic(lines: &str, expected: &str) {
    assert_one_diagnostic(&listener_config_with(lines), expected);
}

#[test]
fn invalid_proxy_protocol_sources_are_reported() {
    assert_listener_diagnostic("proxy_protocol = { from = [] }", "4:18 no proxy is listed");
    assert_listener_diagnostic("proxy_protocol = {}", "| add `from = [\"10.0.0.0/8\"]`");
    assert_listener_diagnostic(
        "proxy_protocol = { from = [\"lb\"] }",
        "4:28 `lb` is not a network",
    );
    assert_listener_diagnostic(
        "proxy_protocol = { from = [\"10.0.0.1/8\"] }",
        "`10.0.0.1/8` has bits set beyond its first 8 | write it as \"10.0.0.0/8\"",
    );
    assert_listener_diagnostic(
        "proxy_protocol = true",
        "`proxy_protocol` cannot be the boolean `true`",
    );
    let many = (0..300).map(|n| format!("\"10.0.{}.{}\"", n / 250, n % 250));
    let many = many.collect::<Vec<_>>().join(",");
    assert_listener_diagnostic(
        &format!("proxy_protocol = {{ from = [{many}] }}"),
        "there are more than 256 networks | write larger ones",
    );
    assert_line_diagnostic(
        "[[listen]]",
        "proxy_protocol = true",
        "`proxy_protocol` is not known here",
    );
}

#[test]
fn tls_without_certificate_is_reported() {
    assert_listener_diagnostic("tls = {}", "4:7 TLS needs a certificate | add `certificates = [");
    assert_listener_diagnostic("tls = { certificates = [] }", "TLS needs a certificate");
    assert_listener_diagnostic(
        "tls = { certificates = [{ key = \"none\" }] }",
        "`certificate` is missing",
    );
    assert_listener_diagnostic(
        "tls = { certificates = [{ certificate = \"none\" }] }",
        "`key` is missing",
    );
    assert_listener_diagnostic(
        "tls = true",
        "`tls` cannot be the boolean `true` | write a table such as",
    );
    assert_listener_diagnostic("http2 = \"yes\"", "`http2` cannot be the string \"yes\"");
}

/// The diagnostics of a listener's TLS with these files.
#[track_caller]
fn assert_tls_diagnostic(directory: &Path, certificates: &str, lines: &str, expected: &str) {
    let text =
        listener_config_with(&format!("[listen.tls]\ncertificates = [{certificates}]\n{lines}"));
    let name = directory.join("test.toml").display().to_string();
    let found: Vec<String> = match config::parse(&name, &text) {
        Ok(_) => Vec::new(),
        Err(report) => {
            report.diagnostics.iter().map(|d| format!("{} | {}", d.message, d.help)).collect()
        }
    };
    match expected {
        "" => assert!(found.is_empty(), "{found:#?}"),
        _ => assert!(found.len() == 1 && found[0].contains(expected), "{found:#?}"),
    }
}

#[test]
fn certificate_files_must_be_readable_and_match() {
    let directory = TempDir::new().expect("a directory");
    let write_file = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).expect("written");
    };
    let authority = CertificateAuthority::new("authority");
    let [a, b] = ["a.example", "b.example"]
        .map(|name| authority.server_certificate(&[name], CertificateValidity::Current));
    write_file("ca.pem", authority.pem());
    write_file("a.pem", &a.chain_pem);
    write_file("a.key", &a.key_pem);
    write_file("b.key", &b.key_pem);
    write_file("half.pem", &a.chain_pem[..a.chain_pem.len() / 2]);
    let check = |certificates: &str, lines: &str, expected: &str| {
        assert_tls_diagnostic(directory.path(), certificates, lines, expected);
    };
    let good = "{ certificate = \"a.pem\", key = \"a.key\" }";
    check(good, "", "");
    check(good, "client_ca = \"ca.pem\"\nclient_auth = \"optional\"", "");
    check("{ certificate = \"a.pem\", key = \"b.key\" }", "", "`b.key` is not the key of `a.pem`");
    check("{ certificate = \"half.pem\", key = \"a.key\" }", "", "cannot be read as PEM");
    check("{ certificate = \"a.key\", key = \"a.key\" }", "", "`a.key` holds no certificate");
    check("{ certificate = \"a.pem\", key = \"a.pem\" }", "", "`a.pem` holds no private key");
    check("{ certificate = \"no.pem\", key = \"a.key\" }", "", "cannot read `");
    check(&format!("{good}, {good}"), "", "`a.pem` is listed twice | list each certificate once");
    check(good, "client_ca = \"b.key\"", "`b.key` holds no certificate");
    check(good, "client_auth = \"optional\"", "`client_auth` has no meaning without `client_ca`");
    let lines = "client_ca = \"ca.pem\"\nclient_auth = \"maybe\"";
    check(good, lines, "is not a value of `client_auth` | write \"required\"");
    check(good, "min_version = \"1.1\"", "`1.1` is not a supported TLS version");
    check(good, "handshake_timeout = \"0s\"", "`handshake_timeout` cannot be zero");
}

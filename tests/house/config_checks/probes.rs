//! Checks of probe keys and their TLS files.

use std::path::Path;
use std::time::Duration;

use gapless::config::{self, LoadedConfig, report::ConfigReport};
use gapless::logic::probing::probe::{
    BodyMatcher, ProbeHttpVersion, ProbeKind, ProbeRole, ProbeSpec,
};
use http::Method;

use super::{VALID_CONFIG, assert_probe_diagnostic, valid_config_with};
use crate::support::pki::CertificateAuthority;

fn parse_probe_in(directory: &Path, probe: &str) -> Result<LoadedConfig, ConfigReport> {
    let text = valid_config_with("{ http = \"/healthz\" }", probe);
    config::parse(&directory.join("test.toml").display().to_string(), &text)
}

fn parse_probes(probe: &str) -> Vec<ProbeSpec> {
    let loaded = parse_probe_in(Path::new(""), probe).unwrap_or_else(|report| panic!("{report}"));
    loaded.config.topology.pools[0].probes.clone()
}

fn parse_single_probe(probe: &str) -> ProbeSpec {
    let [probe] = parse_probes(probe).try_into().expect("one probe");
    probe
}

#[test]
fn every_probe_kind_is_parsed() {
    let ProbeKind::Http(http) =
        parse_single_probe("{ http2 = \"/a?b\", host = \"x\", body = \"q\" }").kind
    else {
        panic!("no HTTP")
    };
    assert_eq!(
        (http.version, http.method, http.body),
        (ProbeHttpVersion::H2, Method::POST, Some(b"q".to_vec()))
    );
    assert_eq!((http.path.as_str(), http.host.as_deref()), ("/a?b", Some("x")));
    let grpc = parse_single_probe("{ grpc = \"\", tls = true, host = \"h.example:1\" }");
    let ProbeKind::Grpc(health) = grpc.kind else { panic!("no gRPC") };
    assert_eq!((health.service.as_str(), health.authority.as_deref()), ("", Some("h.example:1")));
    assert_eq!(grpc.tls.expect("TLS").alpn, [b"h2"]);
    let tcp =
        parse_single_probe("{ tcp = { send = \"PING\\r\\n\", expect = \"+PONG\" }, reuse = true }");
    let (send, expect) = (Some(b"PING\r\n".to_vec()), Some(b"+PONG".to_vec()));
    assert_eq!((tcp.kind, tcp.is_connection_reused), (ProbeKind::Tcp { send, expect }, true));
    let tls = parse_single_probe(
        "{ tls = { server_name = \"x.example\" }, address = \"10.1.2.3\", port = 9 }",
    );
    assert_eq!((tls.kind, tls.port), (ProbeKind::Tls, Some(9)));
    assert_eq!(tls.address, Some([10, 1, 2, 3].into()));
    let options = tls.tls.expect("TLS");
    assert_eq!(
        (options.server_name.as_deref(), options.is_verification_enabled),
        (Some("x.example"), true)
    );
    assert!(
        options.alpn.is_empty() && options.roots.is_none() && options.client_certificate.is_none()
    );
}

#[test]
fn probe_expectations_are_parsed() {
    let spec = parse_single_probe(
        "{ http = \"/\", read = \"1KiB\", first_byte = \"100ms\", expect_body = \"a\", \
         expect_body_regex = 'b\\d', expect_json = { pointer = \"/a/0\", equals = 1.5 }, \
         degraded = { header = \"X-Health:  degraded \", weight_percent = 20 } }",
    );
    assert_eq!(
        (spec.max_body_bytes, spec.first_byte_timeout),
        (1024, Some(Duration::from_millis(100)))
    );
    let degraded = spec.degraded.expect("degraded");
    let (name, value) = degraded.header.expect("a header");
    assert_eq!((name.as_str(), value.as_bytes()), ("x-health", &b"degraded"[..]));
    assert_eq!((degraded.weight_percent, degraded.json), (20, None));
    let ProbeKind::Http(http) = spec.kind else { panic!("no HTTP") };
    let [BodyMatcher::Contains(_), BodyMatcher::Regex(pattern), BodyMatcher::Json(json)] =
        &http.expect_body[..]
    else {
        panic!("{:?}", http.expect_body)
    };
    assert!(pattern.is_match(b"b7") && !pattern.is_match(b"bd"));
    assert!(json.is_match(&serde_json::json!({"a": [1.5]})));
}

#[test]
fn gate_probes_precede_watch_probes() {
    let probes =
        parse_probes("[{ tls = true, role = \"watch\" }, { http = \"/\" }, { tcp = true }]");
    let roles: Vec<_> = probes.iter().map(|probe| probe.role).collect();
    assert_eq!(roles, [ProbeRole::Gate, ProbeRole::Gate, ProbeRole::Watch]);
    assert!(matches!(probes[0].kind, ProbeKind::Http(_)), "in the order of the file");
    let headers =
        VALID_CONFIG.replace("probe = { http = \"/healthz\" }", "[[pool.web.probe]]\ntcp = true");
    assert!(config::parse("test.toml", &headers).is_ok(), "[[headers]] make a list too");
}

#[test]
fn invalid_probe_lists_are_reported() {
    assert_probe_diagnostic("[]", "9:9 the list of probes is empty");
    assert_probe_diagnostic(
        "[{ tcp = true, role = \"watch\" }]",
        "9:9 no probe of the pool is a gate | remove `role`",
    );
    let nine = ["{ tcp = true }"; 9].join(", ");
    assert_probe_diagnostic(&format!("[{nine}]"), "a pool has at most 8 probes, not 9");
    assert_probe_diagnostic(
        "[{ tcp = true }, { http = 5 }]",
        "9:35 `http` cannot be the integer `5`",
    );
    assert_probe_diagnostic(
        "{ tcp = true, role = \"gates\" }",
        "`gates` is not the role of a probe | write \"gate\"",
    );
}

#[test]
fn conflicting_probe_keys_are_rejected() {
    assert_probe_diagnostic(
        "{ http = \"/\", http2 = \"/\" }",
        "either `http` or `http2`, not both | make two probes",
    );
    assert_probe_diagnostic("{ grpc = \"\", tcp = true }", "either `grpc` or `tcp`, not both");
    assert_probe_diagnostic(
        "{ tcp = true, tls = true }",
        "9:17 `tcp = true` has no effect beside `tls`",
    );
    assert_probe_diagnostic("{ http = \"/\", tls = false }", "`tls = false` has no effect");
    assert_probe_diagnostic(
        "{ tls = true, reuse = true }",
        "9:31 `reuse` has no meaning with `tls`",
    );
    assert_probe_diagnostic(
        "{ tls = true, first_byte = \"1ms\" }",
        "`first_byte` has no meaning with `tls`",
    );
    assert_probe_diagnostic("{ tcp = true, read = 1 }", "`read` has no meaning with `tcp`");
    assert_probe_diagnostic(
        "{ tcp = { send = \"a\" }, read = 1 }",
        "`read` has no meaning with `tcp`",
    );
    assert_probe_diagnostic(
        "{ grpc = \"\", method = \"GET\" }",
        "`method` has no meaning with `grpc`",
    );
    assert_probe_diagnostic(
        "{ grpc = \"\", degraded = { header = \"a: b\" } }",
        "`degraded` has no meaning with",
    );
    assert_probe_diagnostic(
        "{ http = \"/\", method = \"GET\", body = \"a\" }",
        "a GET has no body | remove `method`",
    );
    assert_probe_diagnostic(
        "[{ http = \"/\", role = \"watch\", degraded = { header = \"a: b\" } }, { tcp = true }]",
        "`degraded` has no meaning in a probe that only watches",
    );
}

#[test]
fn invalid_probe_expectations_are_reported() {
    assert_probe_diagnostic(
        "{ http = \"/\", expect_body_regex = \"a(\" }",
        "`a(` is not a regular expression: unclosed",
    );
    let assert_json_diagnostic = |test: &str, expected| {
        assert_probe_diagnostic(&format!("{{ http = \"/\", expect_json = {test} }}"), expected);
    };
    assert_json_diagnostic("{ pointer = \"/a\" }", "9:37 a value in JSON needs `equals`");
    assert_json_diagnostic("{ equals = 1 }", "a value in JSON needs `pointer`");
    assert_json_diagnostic(
        "{ pointer = \"a.b\", equals = 1 }",
        "does not begin with `/` | write it as \"/a/b\"",
    );
    assert_json_diagnostic("{ pointer = \"/a\", equals = nan }", "JSON has no such number");
    assert_json_diagnostic(
        "{ pointer = \"/a\", equals = [1] }",
        "`equals` cannot be a list | write text, a number",
    );
    let assert_degraded_diagnostic = |by: &str, expected| {
        assert_probe_diagnostic(&format!("{{ http = \"/\", degraded = {by} }}"), expected);
    };
    assert_degraded_diagnostic("{}", "`degraded` has no test");
    assert_degraded_diagnostic(
        "{ header = \"a\" }",
        "`a` is not a header with its value | write it as \"x-health: d",
    );
    assert_degraded_diagnostic(
        "{ header = \"a: b\", weight_percent = 0 }",
        "`weight_percent` must be from 1 to 99",
    );
    assert_probe_diagnostic("{ http = \"/\", read = \"2MiB\" }", "`read` must be from 1B to 1MiB");
    assert_probe_diagnostic(
        "{ http = \"/\", read = 3, expect_body = \"four\" }",
        "no more than 3B of a body are read",
    );
    assert_probe_diagnostic("{ tcp = { expect = \"\" } }", "`expect` is empty");
    assert_probe_diagnostic(
        "{ tcp = { sent = \"a\" } }",
        "`sent` is not known here | did you mean `send`?",
    );
    assert_probe_diagnostic(
        "{ http = \"/\", first_byte = \"2s\" }",
        "`first_byte` (2s) is longer than `detect.timeout` (500ms) | set `first_byte` to \"500ms\"",
    );
    assert_probe_diagnostic(
        "{ tcp = true, address = \"10.0.0.1:80\" }",
        "is not an IP address | write an IP address",
    );
    assert_probe_diagnostic("{ tcp = true, address = \"::\" }", ":: stands for every address");
}

#[test]
fn invalid_or_unverified_probe_tls_is_reported() {
    assert_probe_diagnostic(
        "{ tls = { verify = false } }",
        "9:28 the certificate of an endpoint is not checked",
    );
    assert_probe_diagnostic(
        "{ tls = { server_name = \"a b\" } }",
        "`a b` cannot be the name in a certificate",
    );
    assert_probe_diagnostic(
        "{ http = \"/\", tls = true, host = \"-a:1\" }",
        "`-a` cannot be the name in a certificate",
    );
    assert_probe_diagnostic("{ tls = { certificate = \"a\" } }", "`certificate` needs its `key`");
    assert_probe_diagnostic("{ tls = { key = \"a\" } }", "`key` needs its `certificate`");
    assert_probe_diagnostic(
        "{ tls = \"ca.pem\" }",
        "`tls` cannot be the string \"ca.pem\" | write true, or a table",
    );
}

#[test]
fn probe_tls_files_are_read_and_checked() {
    let directory = tempfile::tempdir().expect("a directory");
    let path_of = |name: &str| directory.path().join(name);
    let (authority, other) = (CertificateAuthority::new("a"), CertificateAuthority::new("b"));
    let client_identity = authority.client_certificate("probe");
    std::fs::write(path_of("ca.pem"), authority.pem()).expect("written");
    std::fs::write(path_of("mine.pem"), &client_identity.chain_pem).expect("written");
    std::fs::write(path_of("mine.key"), &client_identity.key_pem).expect("written");
    std::fs::write(path_of("other.key"), other.client_certificate("x").key_pem).expect("written");
    std::fs::write(path_of("text"), "text").expect("written");
    let corrupted = authority.pem().replace("MII", "AII");
    std::fs::write(path_of("broken.pem"), corrupted).expect("written");

    let parse_tls =
        |options: &str| parse_probe_in(directory.path(), &format!("{{ tls = {{ {options} }} }}"));
    let good = "ca_file = \"ca.pem\", certificate = \"mine.pem\", key = \"mine.key\"";
    let loaded = parse_tls(good).unwrap_or_else(|report| panic!("{report}"));
    let spec = loaded.config.topology.pools[0].probes[0].tls.clone().expect("TLS");
    assert_eq!(spec.roots.as_deref(), Some(authority.pem().as_bytes()));
    assert_eq!(
        spec.client_certificate.as_ref().expect("a certificate").key[..],
        *client_identity.key_pem.as_bytes()
    );
    assert!(!format!("{:?}", loaded.config).contains("PRIVATE"));

    for (options, message, help) in [
        ("ca_file = \"none.pem\"", "none.pem`: No such file", "relative path begins where"),
        ("ca_file = \".\"", "cannot read", "name a file that can be read"),
        ("ca_file = \"text\"", "`text` holds no certificate", "BEGIN CERTIFICATE"),
        ("ca_file = \"broken.pem\"", "has an invalid certificate", "in PEM"),
        ("ca_file = \"mine.key\"", "`mine.key` holds no certificate", "BEGIN CERTIFICATE"),
        (
            "certificate = \"mine.pem\", key = \"mine.pem\"",
            "`mine.pem` holds no private key",
            "passphrase",
        ),
        ("certificate = \"mine.pem\", key = \"other.key\"", "is not the key of `mine.pem`", "pair"),
    ] {
        let report = parse_tls(options).expect_err(options);
        assert_eq!(report.diagnostics.len(), 1, "{report}");
        let found = &report.diagnostics[0];
        assert!(found.message.contains(message) && found.help.contains(help), "{report}");
        assert_eq!(found.at.line, 9, "{report}");
    }
    let report = parse_tls("ca_file = \"ca.pem\", verify = false").expect_err("refused");
    assert!(report.to_string().contains("`ca_file` has no meaning with `verify = false`"));
}

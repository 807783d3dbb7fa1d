//! Probes: what is asked, what is expected, and the files that belong to TLS.

use std::path::Path;
use std::time::Duration;

use gapless::config::{self, Loaded, report::Report};
use gapless::logic::probe::{BodyTest, HttpVersion, ProbeKind, ProbeSpec, Role};
use http::Method;

use super::{GOOD, probe, with};
use crate::support::pki::Authority;

fn parse_at(directory: &Path, probe: &str) -> Result<Loaded, Report> {
    let text = with("{ http = \"/healthz\" }", probe);
    config::parse(&directory.join("test.toml").display().to_string(), &text)
}

fn probes(probe: &str) -> Vec<ProbeSpec> {
    let loaded = parse_at(Path::new(""), probe).unwrap_or_else(|report| panic!("{report}"));
    loaded.config.topology.pools[0].probes.clone()
}

fn only(probe: &str) -> ProbeSpec {
    let [probe] = probes(probe).try_into().expect("one probe");
    probe
}

#[test]
fn every_kind_is_read() {
    let ProbeKind::Http(http) = only("{ http2 = \"/a?b\", host = \"x\", body = \"q\" }").kind
    else {
        panic!("no HTTP")
    };
    assert_eq!(
        (http.version, http.method, http.body),
        (HttpVersion::H2, Method::POST, Some(b"q".to_vec()))
    );
    assert_eq!((http.path.as_str(), http.host.as_deref()), ("/a?b", Some("x")));
    let grpc = only("{ grpc = \"\", tls = true, host = \"h.example:1\" }");
    let ProbeKind::Grpc(health) = grpc.kind else { panic!("no gRPC") };
    assert_eq!((health.service.as_str(), health.authority.as_deref()), ("", Some("h.example:1")));
    assert_eq!(grpc.tls.expect("TLS").alpn, [b"h2"]);
    let talk = only("{ tcp = { send = \"PING\\r\\n\", expect = \"+PONG\" }, reuse = true }");
    let (send, expect) = (Some(b"PING\r\n".to_vec()), Some(b"+PONG".to_vec()));
    assert_eq!((talk.kind, talk.reuse), (ProbeKind::Tcp { send, expect }, true));
    let tls = only("{ tls = { server_name = \"x.example\" }, address = \"10.1.2.3\", port = 9 }");
    assert_eq!((tls.kind, tls.port), (ProbeKind::Tls, Some(9)));
    assert_eq!(tls.address, Some([10, 1, 2, 3].into()));
    let options = tls.tls.expect("TLS");
    assert_eq!((options.server_name.as_deref(), options.verify), (Some("x.example"), true));
    assert!(options.alpn.is_empty() && options.roots.is_none() && options.client.is_none());
}

#[test]
fn expectations_are_read() {
    let spec = only(
        "{ http = \"/\", read = \"1KiB\", first_byte = \"100ms\", expect_body = \"a\", \
         expect_body_regex = 'b\\d', expect_json = { pointer = \"/a/0\", equals = 1.5 }, \
         degraded = { header = \"X-Health:  degraded \", weight_percent = 20 } }",
    );
    assert_eq!((spec.read_bytes, spec.first_byte), (1024, Some(Duration::from_millis(100))));
    let degraded = spec.degraded.expect("degraded");
    let (name, value) = degraded.header.expect("a header");
    assert_eq!((name.as_str(), value.as_bytes()), ("x-health", &b"degraded"[..]));
    assert_eq!((degraded.weight_percent, degraded.json), (20, None));
    let ProbeKind::Http(http) = spec.kind else { panic!("no HTTP") };
    let [BodyTest::Contains(_), BodyTest::Matches(pattern), BodyTest::Json(json)] =
        &http.expect_body[..]
    else {
        panic!("{:?}", http.expect_body)
    };
    assert!(pattern.matches(b"b7") && !pattern.matches(b"bd"));
    assert!(json.holds(&serde_json::json!({"a": [1.5]})));
}

#[test]
fn gates_come_first() {
    let probes = probes("[{ tls = true, role = \"watch\" }, { http = \"/\" }, { tcp = true }]");
    let roles: Vec<_> = probes.iter().map(|probe| probe.role).collect();
    assert_eq!(roles, [Role::Gate, Role::Gate, Role::Watch]);
    assert!(matches!(probes[0].kind, ProbeKind::Http(_)), "in the order of the file");
    let headers = GOOD.replace("probe = { http = \"/healthz\" }", "[[pool.web.probe]]\ntcp = true");
    assert!(config::parse("test.toml", &headers).is_ok(), "[[headers]] make a list too");
}

#[test]
fn lists() {
    probe("[]", "9:9 the list of probes is empty");
    probe(
        "[{ tcp = true, role = \"watch\" }]",
        "9:9 no probe of the pool is a gate | leave `role`",
    );
    let nine = ["{ tcp = true }"; 9].join(", ");
    probe(&format!("[{nine}]"), "a pool has at most 8 probes, not 9");
    probe("[{ tcp = true }, { http = 5 }]", "9:35 `http` cannot be the integer `5`");
    probe(
        "{ tcp = true, role = \"gates\" }",
        "`gates` is not the role of a probe | write \"gate\"",
    );
}

#[test]
fn what_has_no_meaning_together_is_refused() {
    probe(
        "{ http = \"/\", http2 = \"/\" }",
        "either `http` or `http2`, not both | make two probes",
    );
    probe("{ grpc = \"\", tcp = true }", "either `grpc` or `tcp`, not both");
    probe("{ tcp = true, tls = true }", "9:17 `tcp = true` asks for nothing beside `tls`");
    probe("{ http = \"/\", tls = false }", "`tls = false` asks for nothing");
    probe("{ tls = true, reuse = true }", "9:31 `reuse` has no meaning with `tls`");
    probe("{ tls = true, first_byte = \"1ms\" }", "`first_byte` has no meaning with `tls`");
    probe("{ tcp = true, read = 1 }", "`read` has no meaning with `tcp`");
    probe("{ tcp = { send = \"a\" }, read = 1 }", "`read` has no meaning with `tcp`");
    probe("{ grpc = \"\", method = \"GET\" }", "`method` has no meaning with `grpc`");
    probe("{ grpc = \"\", degraded = { header = \"a: b\" } }", "`degraded` has no meaning with");
    probe("{ http = \"/\", method = \"GET\", body = \"a\" }", "a GET has no body | leave `method`");
    probe(
        "[{ http = \"/\", role = \"watch\", degraded = { header = \"a: b\" } }, { tcp = true }]",
        "`degraded` has no meaning in a probe that only watches",
    );
}

#[test]
fn what_is_expected() {
    probe(
        "{ http = \"/\", expect_body_regex = \"a(\" }",
        "`a(` is not a regular expression: unclosed",
    );
    let test = |test: &str, expected| {
        probe(&format!("{{ http = \"/\", expect_json = {test} }}"), expected);
    };
    test("{ pointer = \"/a\" }", "9:37 a value in JSON needs `equals`");
    test("{ equals = 1 }", "a value in JSON needs `pointer`");
    test("{ pointer = \"a.b\", equals = 1 }", "does not begin with `/` | write it as \"/a/b\"");
    test("{ pointer = \"/a\", equals = nan }", "JSON has no such number");
    test("{ pointer = \"/a\", equals = [1] }", "`equals` cannot be a list | write text, a number");
    let shown =
        |by: &str, expected| probe(&format!("{{ http = \"/\", degraded = {by} }}"), expected);
    shown("{}", "`degraded` does not say by what an endpoint shows it");
    shown("{ header = \"a\" }", "`a` is not a header with its value | write it as \"x-health: d");
    shown("{ header = \"a: b\", weight_percent = 0 }", "`weight_percent` must be from 1 to 99");
    probe("{ http = \"/\", read = \"2MiB\" }", "`read` must be from 1B to 1MiB");
    probe(
        "{ http = \"/\", read = 3, expect_body = \"four\" }",
        "no more than 3B of a body are read",
    );
    probe("{ tcp = { expect = \"\" } }", "`expect` is empty");
    probe("{ tcp = { sent = \"a\" } }", "`sent` is not known here | did you mean `send`?");
    probe(
        "{ http = \"/\", first_byte = \"2s\" }",
        "`first_byte` (2s) is longer than `detect.timeout` (500ms) | set `first_byte` to \"500ms\"",
    );
    probe(
        "{ tcp = true, address = \"10.0.0.1:80\" }",
        "is not an IP address | write an IP address",
    );
    probe("{ tcp = true, address = \"::\" }", ":: stands for every address");
}

#[test]
fn a_certificate_that_is_not_checked_is_warned_of() {
    probe("{ tls = { verify = false } }", "9:28 the certificate of an endpoint is not checked");
    probe("{ tls = { server_name = \"a b\" } }", "`a b` cannot be the name in a certificate");
    probe(
        "{ http = \"/\", tls = true, host = \"-a:1\" }",
        "`-a` cannot be the name in a certificate",
    );
    probe("{ tls = { certificate = \"a\" } }", "`certificate` needs its `key`");
    probe("{ tls = { key = \"a\" } }", "`key` needs its `certificate`");
    probe("{ tls = \"ca.pem\" }", "`tls` cannot be the string \"ca.pem\" | write true, or a table");
}

#[test]
fn files_of_tls_are_read_and_checked() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    let mine = authority.client("probe");
    std::fs::write(at("ca.pem"), authority.pem()).expect("written");
    std::fs::write(at("mine.pem"), &mine.chain_pem).expect("written");
    std::fs::write(at("mine.key"), &mine.key_pem).expect("written");
    std::fs::write(at("other.key"), other.client("x").key_pem).expect("written");
    std::fs::write(at("text"), "text").expect("written");
    let cut = authority.pem().replace("MII", "AII");
    std::fs::write(at("broken.pem"), cut).expect("written");

    let tls = |options: &str| parse_at(directory.path(), &format!("{{ tls = {{ {options} }} }}"));
    let good = "ca_file = \"ca.pem\", certificate = \"mine.pem\", key = \"mine.key\"";
    let loaded = tls(good).unwrap_or_else(|report| panic!("{report}"));
    let spec = loaded.config.topology.pools[0].probes[0].tls.clone().expect("TLS");
    assert_eq!(spec.roots.as_deref(), Some(authority.pem().as_bytes()));
    assert_eq!(spec.client.as_ref().expect("a certificate").key[..], *mine.key_pem.as_bytes());
    assert!(!format!("{:?}", loaded.config).contains("PRIVATE"));

    for (options, message, mend) in [
        ("ca_file = \"none.pem\"", "none.pem`: No such file", "relative path begins where"),
        ("ca_file = \".\"", "cannot read", "name a file that can be read"),
        ("ca_file = \"text\"", "`text` holds no certificate", "BEGIN CERTIFICATE"),
        ("ca_file = \"broken.pem\"", "has a certificate that is broken", "in PEM"),
        ("ca_file = \"mine.key\"", "`mine.key` holds no certificate", "BEGIN CERTIFICATE"),
        (
            "certificate = \"mine.pem\", key = \"mine.pem\"",
            "`mine.pem` holds no private key",
            "passphrase",
        ),
        (
            "certificate = \"mine.pem\", key = \"other.key\"",
            "is not the key to `mine.pem`",
            "together",
        ),
    ] {
        let report = tls(options).expect_err(options);
        assert_eq!(report.diagnostics.len(), 1, "{report}");
        let found = &report.diagnostics[0];
        assert!(found.message.contains(message) && found.mend.contains(mend), "{report}");
        assert_eq!(found.at.line, 9, "{report}");
    }
    let report = tls("ca_file = \"ca.pem\", verify = false").expect_err("refused");
    assert!(report.to_string().contains("`ca_file` has no meaning with `verify = false`"));
}

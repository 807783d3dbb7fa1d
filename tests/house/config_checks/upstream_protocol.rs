//! Checks of the protocol towards endpoints.

use super::{assert_pool_diagnostic, diagnostics_of, valid_config_with};

#[test]
fn invalid_upstream_protocols_are_reported() {
    assert_pool_diagnostic("protocol = \"h2\"", "`h2` is not a protocol for endpoints");
    assert_pool_diagnostic("protocol = \"auto\"", "without `tls` the protocol is always HTTP/1.1");
    assert_pool_diagnostic("protocol = 2", "`protocol` cannot be the integer `2`");
    assert_pool_diagnostic(
        "proxy_protocol = \"v3\"",
        "`v3` is not a version of the PROXY protocol",
    );
    assert_pool_diagnostic("proxy_protocol = true", "`proxy_protocol` cannot be");
    let keys = "tls = true\nprotocol = \"auto\"\nproxy_protocol = \"v2\"";
    assert_eq!(
        diagnostics_of(&valid_config_with("[pool.web]", &format!("[pool.web]\n{keys}"))),
        Vec::<String>::new()
    );
}

#[test]
fn invalid_upstream_tls_is_reported() {
    assert_pool_diagnostic("tls = false", "without `tls` the pool uses cleartext | remove it");
    assert_pool_diagnostic("tls = \"yes\"", "`tls` cannot be the string \"yes\"");
    assert_pool_diagnostic("tls = { server_nam = \"a\" }", "did you mean `server_name`?");
    assert_pool_diagnostic(
        "tls = { server_name = \"a b\" }",
        "`a b` cannot be the name in a certificate",
    );
    assert_pool_diagnostic("tls = { ca_file = \"nowhere.pem\" }", "cannot read `nowhere.pem`");
    assert_pool_diagnostic(
        "tls = { certificate = \"nowhere.pem\" }",
        "`certificate` needs its `key`",
    );
    assert_pool_diagnostic("tls = { key = \"nowhere.pem\" }", "`key` needs its `certificate`");
    assert_pool_diagnostic(
        "tls = { verify = false }",
        "the certificate of an endpoint is not checked",
    );
    let tls_config = valid_config_with("[pool.web]", "[pool.web]\ntls = true");
    assert_eq!(diagnostics_of(&tls_config), Vec::<String>::new());
}

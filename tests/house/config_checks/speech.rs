//! How a pool's endpoints are spoken to.

use super::{found, pool, with};

#[test]
fn protocols() {
    pool("protocol = \"h2\"", "`h2` is not a protocol that endpoints are spoken to in");
    pool("protocol = \"auto\"", "without `tls` there is no choice: this is HTTP/1.1");
    pool("protocol = 2", "`protocol` cannot be the integer `2`");
    pool("proxy_protocol = \"v3\"", "`v3` is not a version of the PROXY protocol");
    pool("proxy_protocol = true", "`proxy_protocol` cannot be");
    let keys = "tls = true\nprotocol = \"auto\"\nproxy_protocol = \"v2\"";
    assert_eq!(found(&with("[pool.web]", &format!("[pool.web]\n{keys}"))), Vec::<String>::new());
}

#[test]
fn tls() {
    pool("tls = false", "without `tls` a pool is spoken to in cleartext | leave it away");
    pool("tls = \"yes\"", "`tls` cannot be the string \"yes\"");
    pool("tls = { server_nam = \"a\" }", "did you mean `server_name`?");
    pool("tls = { server_name = \"a b\" }", "`a b` cannot be the name in a certificate");
    pool("tls = { ca_file = \"nowhere.pem\" }", "cannot read `nowhere.pem`");
    pool("tls = { certificate = \"nowhere.pem\" }", "`certificate` needs its `key`");
    pool("tls = { key = \"nowhere.pem\" }", "`key` needs its `certificate`");
    pool("tls = { verify = false }", "the certificate of an endpoint is not checked");
    let plain = with("[pool.web]", "[pool.web]\ntls = true");
    assert_eq!(found(&plain), Vec::<String>::new());
}

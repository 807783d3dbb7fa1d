//! How a pool's endpoints are spoken to.

use super::{found, pool, with};

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

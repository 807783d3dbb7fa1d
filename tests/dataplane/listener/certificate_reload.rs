//! Certificate reload: a new certificate serves at once, an invalid one never, and open
//! connections are not affected.

use tempfile::TempDir;

use super::tls_client::{
    TLS12_AND_TLS13, TLS12_ONLY, TlsTestClient, certificate_der, client_config,
    default_client_config,
};
use super::{config_text, start_with_files, tls_listener_table, write_identity};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::pki::{CertificateAuthority, CertificateValidity, Identity};
use crate::support::{DEFAULT_TIMEOUT, eventually};

struct CertificateFixture {
    endpoint: TestEndpoint,
    gapless: Gapless,
    authority: CertificateAuthority,
    initial: Identity,
    /// The folder of the certificate, apart from the configuration.
    files: TempDir,
}

impl CertificateFixture {
    fn new() -> Self {
        let authority = CertificateAuthority::new("authority");
        let endpoint = TestEndpoint::start("one");
        let files = TempDir::new().expect("a directory");
        let initial = authority.server_certificate(&["a.example"], CertificateValidity::Current);
        write_identity(files.path(), "a", &initial);
        let name = files.path().join("a").display().to_string();
        let gapless = start_with_files(
            TempDir::new().expect("a directory"),
            &config_text(&ConfigBuilder::new(), &endpoint, &tls_listener_table(&[&name], "")),
        );
        Self { endpoint, gapless, authority, initial, files }
    }

    fn connect(&self) -> TlsTestClient {
        let client = default_client_config(&self.authority);
        TlsTestClient::connect(self.gapless.address, "a.example", &client)
            .expect("a good certificate")
    }

    #[track_caller]
    fn wait_for_reload_verdict(&self, is_refused: bool) {
        eventually("a verdict on the files", DEFAULT_TIMEOUT, || {
            self.gapless.api_json("/api/v1/config")["refused"].is_object() == is_refused
        });
        let ok = self.gapless.metric("gapless_config_last_reload_ok");
        assert_eq!(ok, f64::from(u8::from(!is_refused)));
    }
}

#[test]
fn renewed_certificate_is_served_and_connections_stay() {
    let fixture = CertificateFixture::new();
    let mut open_connection = fixture.connect();
    assert_eq!(open_connection.request_status(""), 200);
    for generation in 2..5 {
        let renewed =
            fixture.authority.server_certificate(&["a.example"], CertificateValidity::Current);
        write_identity(fixture.files.path(), "a", &renewed);
        eventually("the new certificate", DEFAULT_TIMEOUT, || {
            fixture.connect().peer_certificate() == certificate_der(&renewed)
        });
        assert_eq!(open_connection.request_status(""), 200);
        // The two files may be read one after another.
        assert!(fixture.gapless.generation() >= generation);
    }
    assert_eq!(open_connection.peer_certificate(), certificate_der(&fixture.initial));
    assert_eq!(fixture.endpoint.used_connection_count(), 1, "nothing else changed");
}

#[test]
fn invalid_certificate_files_keep_the_old_certificate() {
    let fixture = CertificateFixture::new();
    let mut open_connection = fixture.connect();
    let renewed =
        fixture.authority.server_certificate(&["a.example"], CertificateValidity::Current);
    let (pem, key) = (fixture.files.path().join("a.pem"), fixture.files.path().join("a.key"));
    let half = &renewed.chain_pem[..renewed.chain_pem.len() / 2];
    let bad: [&dyn Fn(); 3] = [
        &|| std::fs::write(&pem, half).expect("written"),
        &|| std::fs::write(&pem, &renewed.chain_pem).expect("written"),
        &|| std::fs::remove_file(&pem).expect("removed"),
    ];
    for (break_file, expected) in
        bad.iter().zip(["cannot be read as PEM", "is not the key of", "cannot read"])
    {
        break_file();
        eventually("a complaint", DEFAULT_TIMEOUT, || {
            let config = fixture.gapless.api_json("/api/v1/config");
            config["refused"]["report"].as_str().is_some_and(|report| report.contains(expected))
        });
        fixture.wait_for_reload_verdict(true);
        assert_eq!(fixture.connect().peer_certificate(), certificate_der(&fixture.initial));
        assert_eq!(open_connection.request_status(""), 200);
        assert_eq!(fixture.gapless.generation(), 1);
    }
    assert!(fixture.gapless.log().contains("configuration refused, the old one stays"));
    std::fs::write(&key, &renewed.key_pem).expect("written");
    std::fs::write(&pem, &renewed.chain_pem).expect("written");
    fixture.wait_for_reload_verdict(false);
    assert_eq!(fixture.connect().peer_certificate(), certificate_der(&renewed));
    assert_eq!(open_connection.request_status(""), 200);
}

#[test]
fn tls_settings_change_without_closing_connections() {
    let fixture = CertificateFixture::new();
    let tls12_client = client_config(&fixture.authority, None, &[], TLS12_ONLY);
    let connect = || TlsTestClient::connect(fixture.gapless.address, "a.example", &tls12_client);
    let mut open_connection = connect().expect("shaken");
    let name = fixture.files.path().join("a").display().to_string();
    let write_listener = |lines: &str| {
        fixture.gapless.write_config(&config_text(
            &ConfigBuilder::new(),
            &fixture.endpoint,
            &tls_listener_table(&[&name], lines),
        ));
    };
    write_listener("min_version = \"1.3\"");
    eventually("the old version is refused", DEFAULT_TIMEOUT, || connect().is_err());
    assert_eq!(open_connection.request_status(""), 200);
    let default_client =
        client_config(&fixture.authority, None, &["h2", "http/1.1"], TLS12_AND_TLS13);
    let alpn = || {
        let connection =
            TlsTestClient::connect(fixture.gapless.address, "a.example", &default_client)
                .expect("shaken");
        connection.alpn().map(<[u8]>::to_vec)
    };
    assert_eq!(alpn(), Some(b"h2".to_vec()));
    fixture.gapless.write_config(&config_text(
        &ConfigBuilder::new(),
        &fixture.endpoint,
        &format!("http2 = false\n{}", tls_listener_table(&[&name], "")),
    ));
    eventually("no HTTP/2 any more", DEFAULT_TIMEOUT, || alpn() == Some(b"http/1.1".to_vec()));
    eventually("the old version again", DEFAULT_TIMEOUT, || connect().is_ok());
    assert_eq!(open_connection.request_status(""), 200);
}

//! Certificates that change while running: new ones are used at once, bad ones never, and nothing
//! that is open notices.

use tempfile::TempDir;

use super::secure::{BOTH, ONLY_12, Secure, config, der, simple};
use super::{listen_tls, put, start, text};
use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;
use crate::support::pki::{Authority, Identity, Valid};
use crate::support::{SOON, eventually};

struct Scene {
    endpoint: Endpoint,
    gapless: Gapless,
    authority: Authority,
    first: Identity,
    /// Where the certificate lies, away from the configuration.
    files: TempDir,
}

impl Scene {
    fn new() -> Self {
        let authority = Authority::new("authority");
        let endpoint = Endpoint::start("one");
        let files = TempDir::new().expect("a directory");
        let first = authority.server(&["a.example"], Valid::Now);
        put(files.path(), "a", &first);
        let name = files.path().join("a").display().to_string();
        let gapless = start(
            TempDir::new().expect("a directory"),
            &text(&Config::new(), &endpoint, &listen_tls(&[&name], "")),
        );
        Self { endpoint, gapless, authority, first, files }
    }

    fn connect(&self) -> Secure {
        let client = simple(&self.authority);
        Secure::connect(self.gapless.address, "a.example", &client).expect("a good certificate")
    }

    #[track_caller]
    fn wait_refused(&self, is_refused: bool) {
        eventually("a verdict on the files", SOON, || {
            self.gapless.api("/api/v1/config")["refused"].is_object() == is_refused
        });
        let ok = self.gapless.metric("gapless_config_last_reload_ok");
        assert_eq!(ok, f64::from(u8::from(!is_refused)));
    }
}

#[test]
fn a_new_certificate_is_shown_without_a_connection_being_dropped() {
    let scene = Scene::new();
    let mut kept = scene.connect();
    assert_eq!(kept.ask(""), 200);
    for generation in 2..5 {
        let next = scene.authority.server(&["a.example"], Valid::Now);
        put(scene.files.path(), "a", &next);
        eventually("the new certificate", SOON, || scene.connect().shown() == der(&next));
        assert_eq!(kept.ask(""), 200);
        // The two files may be seen one after the other.
        assert!(scene.gapless.generation() >= generation);
    }
    assert_eq!(kept.shown(), der(&scene.first));
    assert_eq!(scene.endpoint.connections(), 1, "nothing else changed");
}

#[test]
fn half_written_and_mismatched_files_keep_the_old_certificate() {
    let scene = Scene::new();
    let mut kept = scene.connect();
    let next = scene.authority.server(&["a.example"], Valid::Now);
    let (pem, key) = (scene.files.path().join("a.pem"), scene.files.path().join("a.key"));
    let half = &next.chain_pem[..next.chain_pem.len() / 2];
    let bad: [&dyn Fn(); 3] = [
        &|| std::fs::write(&pem, half).expect("written"),
        &|| std::fs::write(&pem, &next.chain_pem).expect("written"),
        &|| std::fs::remove_file(&pem).expect("removed"),
    ];
    for (spoil, said) in
        bad.iter().zip(["cannot be read as PEM", "is not the key to", "cannot read"])
    {
        spoil();
        eventually("a complaint", SOON, || {
            let config = scene.gapless.api("/api/v1/config");
            config["refused"]["report"].as_str().is_some_and(|report| report.contains(said))
        });
        scene.wait_refused(true);
        assert_eq!(scene.connect().shown(), der(&scene.first));
        assert_eq!(kept.ask(""), 200);
        assert_eq!(scene.gapless.generation(), 1);
    }
    assert!(scene.gapless.log().contains("configuration refused, the old one stays"));
    std::fs::write(&key, &next.key_pem).expect("written");
    std::fs::write(&pem, &next.chain_pem).expect("written");
    scene.wait_refused(false);
    assert_eq!(scene.connect().shown(), der(&next));
    assert_eq!(kept.ask(""), 200);
}

#[test]
fn what_a_listener_asks_for_changes_without_its_being_closed() {
    let scene = Scene::new();
    let old = config(&scene.authority, None, &[], ONLY_12);
    let connect = || Secure::connect(scene.gapless.address, "a.example", &old);
    let mut kept = connect().expect("shaken");
    let name = scene.files.path().join("a").display().to_string();
    let with = |lines: &str| {
        scene.gapless.write(&text(&Config::new(), &scene.endpoint, &listen_tls(&[&name], lines)));
    };
    with("min_version = \"1.3\"");
    eventually("the old version is refused", SOON, || connect().is_err());
    assert_eq!(kept.ask(""), 200);
    let both = config(&scene.authority, None, &["h2", "http/1.1"], BOTH);
    let alpn = || {
        let secure = Secure::connect(scene.gapless.address, "a.example", &both).expect("shaken");
        secure.alpn().map(<[u8]>::to_vec)
    };
    assert_eq!(alpn(), Some(b"h2".to_vec()));
    scene.gapless.write(&text(
        &Config::new(),
        &scene.endpoint,
        &format!("http2 = false\n{}", listen_tls(&[&name], "")),
    ));
    eventually("no HTTP/2 any more", SOON, || alpn() == Some(b"http/1.1".to_vec()));
    eventually("the old version again", SOON, || connect().is_ok());
    assert_eq!(kept.ask(""), 200);
}

//! Keys that seal the affinity cookies.
//!
//! A sealed pin reveals neither an address nor whether two endpoints are the same, and cannot be
//! forged. The construction is a synthetic IV (Rogaway and Shrimpton, 2006) from HMAC-SHA256 alone:
//! a tag of 128 bits over the pin, and the pin under a mask that is derived from the tag. It needs
//! no nonce, so the number of cookies is not limited. Each pool has keys of its own, so a cookie of
//! another pool does not open.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand;

use crate::logic::steering::affinity::{AffinityPin, CookieSecrets};

const TAG_BYTES: usize = 16;
const PIN_BYTES: usize = 4 + 8 + 8;
/// A multiple of three, so that the Base64 text has no padding.
const SEALED_BYTES: usize = TAG_BYTES + PIN_BYTES;

const BASE64_ALPHABET: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The file of the instance's secret in its state directory.
const SECRET_FILE: &str = "affinity.key";

#[derive(Debug)]
pub struct Keyring {
    secrets: CookieSecrets,
    /// Pairs for tags and for masks; the first pair seals, all of them open.
    keys: Vec<(hmac::Key, hmac::Key)>,
}

impl Keyring {
    /// Derives the keys of the pool of this name from `secrets`.
    pub fn new(pool: &str, secrets: &CookieSecrets) -> Self {
        let key = |secret: &[u8; 32], use_: &str| {
            let secret = hmac::Key::new(HMAC_SHA256, secret);
            let text = format!("gapless affinity 1 {use_} {pool}");
            hmac::Key::new(HMAC_SHA256, hmac::sign(&secret, text.as_bytes()).as_ref())
        };
        let pair = |secret| (key(secret, "tag"), key(secret, "mask"));
        Self { secrets: secrets.clone(), keys: secrets.0.iter().map(pair).collect() }
    }

    /// Whether the keys are derived from `secrets`.
    pub fn is_derived_from(&self, secrets: &CookieSecrets) -> bool {
        self.secrets == *secrets
    }

    /// Seals a pin into the value of a cookie.
    pub fn seal_pin(&self, pin: &AffinityPin) -> String {
        let Some((tagging, masking)) = self.keys.first() else { return String::new() };
        let mut plain = [0; PIN_BYTES];
        plain[..4].copy_from_slice(&pin.written_s.to_be_bytes());
        plain[4..12].copy_from_slice(&pin.preferred.to_be_bytes());
        plain[12..].copy_from_slice(&pin.current.to_be_bytes());
        let tag = hmac::sign(tagging, &plain);
        let mut sealed = [0; SEALED_BYTES];
        sealed[..TAG_BYTES].copy_from_slice(&tag.as_ref()[..TAG_BYTES]);
        sealed[TAG_BYTES..].copy_from_slice(&plain);
        let (tag, body) = sealed.split_at_mut(TAG_BYTES);
        apply_mask(masking, tag, body);
        base64_encode(&sealed)
    }

    /// Opens the value of a cookie, and reports whether the current key sealed it. `None` if none
    /// of the keys did.
    pub fn open_pin(&self, text: &[u8]) -> Option<(AffinityPin, bool)> {
        let sealed = base64_decode(text)?;
        let (tag, body) = sealed.split_at(TAG_BYTES);
        self.keys.iter().enumerate().find_map(|(index, (tagging, masking))| {
            let mut plain = [0; PIN_BYTES];
            plain.copy_from_slice(body);
            apply_mask(masking, tag, &mut plain);
            let expected = hmac::sign(tagging, &plain);
            verify_slices_are_equal(tag, &expected.as_ref()[..TAG_BYTES]).ok()?;
            let word = |at: usize| plain[at..].first_chunk().map_or(0, |b| u64::from_be_bytes(*b));
            let written_s = plain.first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
            Some((AffinityPin { preferred: word(4), current: word(12), written_s }, index == 0))
        })
    }
}

fn apply_mask(key: &hmac::Key, tag: &[u8], body: &mut [u8]) {
    let mask = hmac::sign(key, tag);
    body.iter_mut().zip(mask.as_ref()).for_each(|(byte, mask)| *byte ^= mask);
}

/// Base64 with the URL alphabet (RFC 4648 5).
fn base64_encode(sealed: &[u8; SEALED_BYTES]) -> String {
    let mut text = String::with_capacity(SEALED_BYTES / 3 * 4);
    for three in sealed.chunks_exact(3) {
        let bits = three.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte));
        text.extend(
            [18, 12, 6, 0].map(|by| char::from(BASE64_ALPHABET[(bits >> by & 63) as usize])),
        );
    }
    text
}

fn base64_decode(text: &[u8]) -> Option<[u8; SEALED_BYTES]> {
    if text.len() != SEALED_BYTES / 3 * 4 {
        return None;
    }
    let mut sealed = [0; SEALED_BYTES];
    for (three, four) in sealed.chunks_exact_mut(3).zip(text.chunks_exact(4)) {
        let mut bits = 0;
        for letter in four {
            bits = bits << 6 | BASE64_ALPHABET.iter().position(|other| other == letter)? as u32;
        }
        three.copy_from_slice(&bits.to_be_bytes()[1..]);
    }
    Some(sealed)
}

/// The secret of an instance for pools without their own: the one stored in `directory`, or else
/// `inherited`, or else a random one. A secret that cannot be stored lasts only for this process
/// and its successors.
pub fn instance_secret(
    directory: Option<&Path>,
    inherited: Option<&CookieSecrets>,
) -> CookieSecrets {
    let fresh = || inherited.cloned().unwrap_or_else(random_secrets);
    let Some(directory) = directory else { return fresh() };
    load_or_create_secret(directory, fresh).unwrap_or_else(|error| {
        let path = directory.join(SECRET_FILE);
        tracing::error!(
            "affinity cookies will not outlive this process: {}: {error}",
            path.display()
        );
        fresh()
    })
}

fn random_secrets() -> CookieSecrets {
    let mut secret = [0; 32];
    if rand::fill(&mut secret).is_err() {
        tracing::error!("no system randomness: affinity cookies could be forged");
    }
    CookieSecrets([secret].into())
}

/// Reads the secret in `directory`, or creates it.
fn load_or_create_secret(
    directory: &Path,
    fresh: impl FnOnce() -> CookieSecrets,
) -> io::Result<CookieSecrets> {
    let path = directory.join(SECRET_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => return CookieSecrets::parse(&text).map_err(io::Error::other),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
    let secrets = fresh();
    // Written completely or not at all; of two processes that create it, both use the first one's.
    let draft = directory.join(format!("{SECRET_FILE}.{}", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(secrets.to_text().as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, &path);
    fs::remove_file(&draft)?;
    match linked {
        Ok(()) => Ok(secrets),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            CookieSecrets::parse(&fs::read_to_string(&path)?).map_err(io::Error::other)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(bytes: &[u8]) -> CookieSecrets {
        CookieSecrets(bytes.iter().map(|&byte| [byte; 32]).collect())
    }

    #[test]
    fn pin_of_other_pool_or_secret_does_not_open() {
        let pin =
            AffinityPin { preferred: 0x0123_4567_89ab_cdef, current: 7, written_s: 1_800_000_000 };
        let keyring = Keyring::new("web", &secrets(&[1]));
        let text = keyring.seal_pin(&pin);
        assert_eq!((keyring.open_pin(text.as_bytes()), text.len()), (Some((pin, true)), 48));
        let rotated = Keyring::new("web", &secrets(&[2, 1]));
        assert_eq!(rotated.open_pin(text.as_bytes()), Some((pin, false)));
        assert_ne!(rotated.seal_pin(&pin), text, "the first key seals");
        assert_eq!(Keyring::new("api", &secrets(&[1])).open_pin(text.as_bytes()), None);
        assert_eq!(Keyring::new("web", &secrets(&[2])).open_pin(text.as_bytes()), None);
    }

    #[test]
    fn pin_with_any_changed_byte_does_not_open() {
        let keyring = Keyring::new("web", &secrets(&[1]));
        let text = keyring.seal_pin(&AffinityPin::new(42, 1_800_000_000)).into_bytes();
        for index in 0..text.len() {
            let mut forged = text.clone();
            forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(keyring.open_pin(&forged), None, "{index}");
        }
        for bad in [&text[1..], b"", b"=", &[text.as_slice(), b"A"].concat()] {
            assert_eq!(keyring.open_pin(bad), None);
        }
    }

    #[test]
    fn instance_secret_with_state_dir_is_saved() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("state");
        let first = instance_secret(Some(&path), None);
        assert_eq!(instance_secret(Some(&path), Some(&secrets(&[9]))), first);
        assert_eq!(fs::read_dir(&path).expect("directory").count(), 1);
        assert_ne!(instance_secret(None, None), first);
        assert_eq!(instance_secret(None, Some(&first)), first);
        fs::write(path.join(SECRET_FILE), "half").expect("written");
        assert_ne!(instance_secret(Some(&path), None), first, "and the file is left alone");
        assert_eq!(fs::read(path.join(SECRET_FILE)).expect("file"), b"half");
    }
}

//! The keys that seal Connections and Variables at rest.
//!
//! A sealed text is `g1:<key id>:<base64 of nonce and ciphertext>`. The cipher is XChaCha20-Poly1305, whose nonces are
//! long enough to be drawn at random; the place of a value is authenticated with it, so that a sealed value moved to
//! another row does not open.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Generate as _, Key, KeyInit as _, Payload},
};
use gust_ports::{Cipher, CipherError};
use thiserror::Error;
use zeroize::Zeroizing;

/// The form of what [`Keyring`] seals; another one would get another mark.
const FORM: &str = "g1";

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Bytes of a nonce.
const NONCE_BYTES: usize = 24;

/// Why a ring of keys cannot be made.
#[derive(Debug, Error)]
pub enum KeyError {
    /// No key was given.
    #[error("no key was given: at least one is needed to seal secrets")]
    None,
    /// A key's text is not one. The text itself is not shown.
    #[error("key {number} is not of the form `<id>:<base64 of 32 bytes>`: {why}")]
    Malformed {
        /// Which, from 1.
        number: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// Two keys have one id.
    #[error("two keys have the id {id:?}; every key needs its own")]
    Twice {
        /// The id.
        id: String,
    },
    /// The key file cannot be read or made.
    #[error("the key file {path} cannot be used: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The machine gives no randomness.
    #[error("the machine gives no randomness for a new key")]
    NoRandomness,
}

struct NamedKey {
    id: String,
    cipher: XChaCha20Poly1305,
}

/// Keys by their ids: the first seals, all open. Keys are wiped from memory when the ring is dropped.
pub struct Keyring {
    keys: Vec<NamedKey>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.keys.iter().map(|key| key.id.as_str()).collect();
        f.debug_struct("Keyring").field("key_ids", &ids).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Reads keys written `<id>:<base64 of 32 bytes>`. The first seals; those after it only open what they sealed
    /// before.
    pub fn from_texts(texts: &[String]) -> Result<Self, KeyError> {
        let mut keys: Vec<NamedKey> = Vec::with_capacity(texts.len());
        for (i, text) in texts.iter().enumerate() {
            let key = parse_key(text.trim()).map_err(|why| KeyError::Malformed { number: i + 1, why })?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(KeyError::Twice { id: key.id });
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(KeyError::None);
        }
        Ok(Self { keys })
    }

    /// Reads the keys of a file, one a line, or makes the file with one fresh key, readable by its owner alone. Of
    /// two processes that make it at once, one wins and the other reads what it wrote.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File { path: path.display().to_string(), source };
        match read_key_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let line = Self::fresh_text()?;
                create_key_file(path, &line).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
            Ok(_) => {}
        }
        let text = read_key_file(path).map_err(failed)?;
        let lines: Vec<String> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect();
        let lines = Zeroizing::new(lines);
        Self::from_texts(&lines)
    }

    /// A fresh key in its text form, under a random id.
    pub fn fresh_text() -> Result<Zeroizing<String>, KeyError> {
        let mut key = Key::<XChaCha20Poly1305>::try_generate().map_err(|_| KeyError::NoRandomness)?;
        let id = XNonce::try_generate().map_err(|_| KeyError::NoRandomness)?;
        let id = format!("{:02x}{:02x}{:02x}{:02x}", id[0], id[1], id[2], id[3]);
        let text = Zeroizing::new(format!("{id}:{}", STANDARD_NO_PAD.encode(key)));
        zeroize::Zeroize::zeroize(key.as_mut_slice());
        Ok(text)
    }
}

fn parse_key(text: &str) -> Result<NamedKey, &'static str> {
    let (id, encoded) = text.split_once(':').ok_or("it has no colon")?;
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return Err("its id is not made of letters, digits, - and _");
    }
    let encoded = encoded.trim_end_matches('=');
    let bytes = STANDARD_NO_PAD.decode(encoded).map_err(|_| "what follows the colon is not base64")?;
    let bytes = Zeroizing::new(bytes);
    if bytes.len() != KEY_BYTES {
        return Err("what follows the colon is not 32 bytes");
    }
    let cipher =
        XChaCha20Poly1305::new_from_slice(&bytes).map_err(|_| "what follows the colon is not 32 bytes")?;
    Ok(NamedKey { id: id.to_owned(), cipher })
}

fn read_key_file(path: &Path) -> io::Result<Zeroizing<String>> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("others may read or change it (mode {:o}); run chmod 600 on it", mode & 0o777),
        ));
    }
    fs::read_to_string(path).map(Zeroizing::new)
}

/// Writes the whole file under another name first; linking it to its own fails if somebody was faster.
fn create_key_file(path: &Path, line: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", uuid::Uuid::new_v4()));
    let draft = folder.join(name);
    let made = (|| {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(line.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::hard_link(&draft, path)
    })();
    // The draft has served its purpose, or is of no use.
    let _ = fs::remove_file(&draft);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(folder)?.sync_all(),
    }
}

impl Cipher for Keyring {
    fn seal(&self, place: &str, plain: &str) -> Result<String, CipherError> {
        let damaged = || CipherError::Damaged { place: place.to_owned() };
        let key = self.keys.first().ok_or_else(damaged)?;
        let nonce = XNonce::try_generate().map_err(|_| damaged())?;
        let payload = Payload { msg: plain.as_bytes(), aad: place.as_bytes() };
        let sealed = key.cipher.encrypt(&nonce, payload).map_err(|_| damaged())?;
        let mut bytes = Vec::with_capacity(NONCE_BYTES + sealed.len());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        Ok(format!("{FORM}:{}:{}", key.id, STANDARD_NO_PAD.encode(bytes)))
    }

    fn open(&self, place: &str, sealed: &str) -> Result<String, CipherError> {
        let damaged = || CipherError::Damaged { place: place.to_owned() };
        let mut parts = sealed.splitn(3, ':');
        let (Some(FORM), Some(key_id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(damaged());
        };
        let key = self.keys.iter().find(|key| key.id == key_id);
        let key = key
            .ok_or_else(|| CipherError::UnknownKey { place: place.to_owned(), key_id: key_id.to_owned() })?;
        let bytes = STANDARD_NO_PAD.decode(encoded).map_err(|_| damaged())?;
        let (nonce, ciphertext) = bytes.split_at_checked(NONCE_BYTES).ok_or_else(damaged)?;
        let nonce = XNonce::try_from(nonce).map_err(|_| damaged())?;
        let payload = Payload { msg: ciphertext, aad: place.as_bytes() };
        let plain = key.cipher.decrypt(&nonce, payload).map_err(|_| damaged())?;
        String::from_utf8(plain).map_err(|_| damaged())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(texts: &[&str]) -> Keyring {
        Keyring::from_texts(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    const OLD: &str = "old:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const NEW: &str = "new:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let ring = ring(&[NEW]);
        let sealed = ring.seal("variable/a/value", "s3cret ✓").unwrap();
        assert!(sealed.starts_with("g1:new:"), "{sealed}");
        assert_eq!(ring.open("variable/a/value", &sealed).unwrap(), "s3cret ✓");
        let elsewhere = ring.open("variable/b/value", &sealed);
        assert_eq!(elsewhere, Err(CipherError::Damaged { place: "variable/b/value".to_owned() }));
    }

    #[test]
    fn two_seals_of_one_text_differ() {
        let ring = ring(&[NEW]);
        assert_ne!(ring.seal("p", "x").unwrap(), ring.seal("p", "x").unwrap());
    }

    #[test]
    fn an_older_key_still_opens_and_the_first_seals() {
        let sealed = ring(&[OLD]).seal("p", "x").unwrap();
        let rotated = ring(&[NEW, OLD]);
        assert_eq!(rotated.open("p", &sealed).unwrap(), "x");
        assert!(rotated.seal("p", "x").unwrap().starts_with("g1:new:"));
        let forgotten = ring(&[NEW]).open("p", &sealed);
        assert_eq!(
            forgotten,
            Err(CipherError::UnknownKey { place: "p".to_owned(), key_id: "old".to_owned() })
        );
    }

    #[test]
    fn damage_is_seen() {
        let ring = ring(&[NEW]);
        let sealed = ring.seal("p", "x").unwrap();
        for broken in
            ["", "x", "g1", "g1:new", "g1:new:", "g1:new:!!", &sealed[..sealed.len() - 2], "g2:new:AAAA"]
        {
            assert!(matches!(ring.open("p", broken), Err(CipherError::Damaged { .. })), "{broken}");
        }
    }

    #[test]
    fn malformed_keys_are_named_by_number_without_showing_them() {
        for bad in ["nocolon", "a:???", "a:AAAA", "b ad:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            let error = Keyring::from_texts(&[NEW.to_owned(), bad.to_owned()]).unwrap_err().to_string();
            assert!(error.contains("key 2"), "{error}");
            assert!(!error.contains(bad), "{error}");
        }
        assert!(matches!(Keyring::from_texts(&[]), Err(KeyError::None)));
        let twice = Keyring::from_texts(&[NEW.to_owned(), NEW.to_owned()]);
        assert!(matches!(twice, Err(KeyError::Twice { id }) if id == "new"));
    }

    #[test]
    fn debug_shows_ids_and_no_keys() {
        assert_eq!(format!("{:?}", ring(&[NEW, OLD])), r#"Keyring { key_ids: ["new", "old"], .. }"#);
    }

    #[test]
    fn a_key_file_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let sealed = Keyring::load_or_create(&path).unwrap().seal("p", "x").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Keyring::load_or_create(&path).unwrap().open("p", &sealed).unwrap(), "x");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Keyring::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}

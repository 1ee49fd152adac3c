//! The key of this host.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::configuration::{Configuration, lock, read};
use super::{Fingerprint, Problem};
use crate::checkpoint::Directory;
use crate::error::{Error, Result};

/// The name of the file in the [`Configuration`].
const FILE: &str = "key.pem";
/// An Ed25519 key takes 190 bytes.
const LIMIT: u64 = 4096;

/// The key of this host (Ed25519), by which its peers know it.
pub struct HostKey {
    pair: KeyPair,
    certificate: CertificateDer<'static>,
    path: PathBuf,
}

impl HostKey {
    /// Reads the key, or makes one if there is none; `true` says that it was made.
    ///
    /// # Errors
    /// [`Problem::Untrusted`], [`Problem::Readable`] and [`Problem::Links`] when others may have read it or put it there,
    /// [`Problem::Damaged`] when it is no key of this kind. It is never replaced.
    pub fn open_or_make(configuration: &Configuration) -> Result<(Self, bool)> {
        let directory = configuration.open_or_make()?;
        if let Some(key) = Self::read(&directory)? {
            return Ok((key, false));
        }
        // Two at once would make two, of which one is shown to somebody and the other stays.
        let _lock = lock(&directory)?;
        if let Some(key) = Self::read(&directory)? {
            return Ok((key, false));
        }
        let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(|error| Problem::NoKey { why: error.to_string() })?;
        let path = directory.path_of(FILE);
        let key = Self::new(pair, path)?;
        directory.replace(FILE, key.pair.serialize_pem().as_bytes(), true)?;
        Ok((key, true))
    }

    /// Reads the key if there is one.
    ///
    /// # Errors
    /// As [`open_or_make`](Self::open_or_make).
    pub fn open(configuration: &Configuration) -> Result<Option<Self>> {
        configuration.open()?.map_or(Ok(None), |directory| Self::read(&directory))
    }

    fn read(directory: &Directory) -> Result<Option<Self>> {
        let Some((text, stat)) = read(directory, OsStr::new(FILE), LIMIT)? else { return Ok(None) };
        let path = directory.path_of(FILE);
        if stat.st_mode & 0o077 != 0 {
            return Err(Problem::Readable { path, mode: stat.st_mode & 0o7777 }.into());
        }
        if stat.st_nlink != 1 {
            return Err(Problem::Links { path, links: stat.st_nlink }.into());
        }
        let pair = KeyPair::from_pem_and_sign_algo(&text, &PKCS_ED25519)
            .map_err(|error| Problem::Damaged { path: path.clone(), why: format!("it is no Ed25519 key ({error})") })?;
        Self::new(pair, path).map(Some)
    }

    /// The certificate only wraps the public key, and nobody looks at what else it says.
    fn new(pair: KeyPair, path: PathBuf) -> Result<Self> {
        let certificate = CertificateParams::new(["crr".to_owned()])
            .and_then(|parameters| parameters.self_signed(&pair))
            .map_err(|error| Error::from(Problem::NoKey { why: error.to_string() }))?;
        Ok(Self { certificate: certificate.der().clone(), pair, path })
    }

    /// What its peers enrol.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.pair.subject_public_key_info())
    }

    /// The file.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// What the handshake shows.
    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// What the handshake signs with.
    pub(super) fn private(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pair.serialize_der()).into()
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostKey").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

//! The short form of a public key that people compare.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64_NOPAD;
use ring::digest::{SHA256, digest};

use super::Problem;

/// The SHA-256 of a public key as certificates hold it (SubjectPublicKeyInfo). Written as ssh does: `SHA256:` and 43
/// characters of base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    const PREFIX: &str = "SHA256:";

    /// The fingerprint of a public key in DER.
    pub fn of(public_key_info: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, public_key_info).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, BASE64_NOPAD.encode(&self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let wrong = || Problem::Fingerprint { value: text.into() };
        let bytes = BASE64_NOPAD.decode(text.strip_prefix(Self::PREFIX).ok_or_else(wrong)?.as_bytes());
        bytes.ok().and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_written_as_ssh_writes_it() {
        // printf abc | openssl dgst -sha256 -binary | base64
        assert_eq!(Fingerprint::of(b"abc").to_string(), "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0");
    }

    #[test]
    fn nothing_but_the_whole_of_it_is_understood() {
        let good = Fingerprint::of(b"abc").to_string();
        let bare = good.strip_prefix("SHA256:").unwrap();
        for wrong in [
            "",
            "SHA256:",
            bare,
            &format!("sha256:{bare}"),
            &format!("MD5:{bare}"),
            &format!("{good}="),
            &format!("{good} "),
            &good[..good.len() - 1],
            // The last character has two bits to spare: another spelling of the same bytes.
            &format!("{}1", &good[..good.len() - 1]),
        ] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: [u8; 32]) {
            let fingerprint = Fingerprint(bytes);
            prop_assert_eq!(fingerprint.to_string().parse::<Fingerprint>().unwrap(), fingerprint);
        }
    }
}

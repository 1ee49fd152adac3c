//! What each side says first on every connection: that it is crr, and which versions of the protocol it speaks.
//!
//! 16 bytes, readable in every version to come: `crr-wire`, the oldest version and the newest (each two bytes, little
//! endian), four zeros. Both sides send theirs at once; the newest that both speak is spoken.

use std::ops::RangeInclusive;

use super::fault::Fault;

/// The versions that this crr speaks.
pub const VERSIONS: RangeInclusive<u16> = 1..=1;
/// How long a greeting is.
pub const GREETING_LENGTH: usize = 16;

const MAGIC: &[u8; 8] = b"crr-wire";

/// The greeting of this crr.
pub fn greeting() -> [u8; GREETING_LENGTH] {
    greeting_of(*VERSIONS.start(), *VERSIONS.end())
}

fn greeting_of(oldest: u16, newest: u16) -> [u8; GREETING_LENGTH] {
    let mut bytes = [0; GREETING_LENGTH];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..10].copy_from_slice(&oldest.to_le_bytes());
    bytes[10..12].copy_from_slice(&newest.to_le_bytes());
    bytes
}

/// Whether these may be the first bytes of a greeting: a wrong one is found out with its first byte.
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.iter().zip(MAGIC).all(|(found, expected)| found == expected)
}

/// The version to speak with whoever said this.
pub(super) fn agree(bytes: &[u8; GREETING_LENGTH]) -> Result<u16, Fault> {
    if bytes[..8] != *MAGIC {
        return Err(Fault::NotCrr { found: bytes.to_vec() });
    }
    let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let (oldest, newest) = (number(8), number(10));
    let agreed = newest.min(*VERSIONS.end());
    // Zero is no version.
    if oldest == 0 || oldest > newest || agreed < oldest || agreed < *VERSIONS.start() {
        return Err(Fault::Version { oldest, newest });
    }
    if bytes[12..] != [0; 4] {
        return Err(Fault::Reserved { what: "greeting" });
    }
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_both_speak_is_agreed_on() {
        assert_eq!(agree(&greeting()).unwrap(), 1);
        assert_eq!(agree(&greeting_of(1, 9)).unwrap(), 1);
        for (oldest, newest) in [(2, 9), (0, 1), (0, 0), (1, 0)] {
            let fault = agree(&greeting_of(oldest, newest)).unwrap_err();
            assert!(fault.to_string().contains(&format!("{oldest} to {newest} of the protocol, this crr 1 to 1")));
            assert!(fault.hint().is_some());
        }
    }

    #[test]
    fn what_is_no_greeting_is_quoted() {
        let fault = agree(b"bash: crr: comma").unwrap_err();
        assert_eq!(
            fault.to_string(),
            "the other side does not speak crr's protocol: it begins with `bash: crr: comma`"
        );
        let mut more = greeting();
        more[13] = 1;
        assert!(matches!(agree(&more), Err(Fault::Reserved { .. })));
    }
}

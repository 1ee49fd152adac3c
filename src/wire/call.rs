//! The first bytes of a connection: which migration it is of, and what it is for.
//!
//! They come before TLS, in the clear, and nobody trusts them: they only tell an agent which process to hand the connection to,
//! and that one then finds out who is at the other end. 32 bytes: `crr-call`, the version, the purpose, six zeros, the id.

use super::Id;

/// How many bytes they are.
pub const CALL_LENGTH: usize = 32;

const MAGIC: &[u8; 8] = b"crr-call";
const VERSION: u8 = 1;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Messages.
    Control = 1,
    /// Pages and files of a migration that has a connection for messages already.
    Data = 2,
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The migration.
    pub id: Id,
    /// What for.
    pub purpose: Purpose,
}

impl Call {
    /// Its bytes.
    pub fn to_bytes(self) -> [u8; CALL_LENGTH] {
        let mut bytes = [0; CALL_LENGTH];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8] = VERSION;
        bytes[9] = self.purpose as u8;
        bytes[16..].copy_from_slice(&self.id.to_bytes());
        bytes
    }

    /// What was called.
    ///
    /// # Errors
    /// Why it is not understood, for the log of whoever was called.
    pub fn parse(bytes: &[u8; CALL_LENGTH]) -> Result<Self, String> {
        if bytes[..8] != *MAGIC {
            return Err("whoever called does not speak crr's protocol".into());
        }
        if bytes[8] != VERSION {
            return Err(format!(
                "the caller speaks version {} of the protocol, and this crr version {VERSION}",
                bytes[8]
            ));
        }
        let purpose = match bytes[9] {
            1 => Purpose::Control,
            2 => Purpose::Data,
            other => return Err(format!("a connection for the unknown purpose {other}")),
        };
        if bytes[10..16] != [0; 6] {
            return Err("a call with something where nothing may be".into());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[16..]);
        let id = Id::from_bytes(id).ok_or("a call without a migration's id")?;
        Ok(Self { id, purpose })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_is_understood() {
        for purpose in [Purpose::Control, Purpose::Data] {
            let call = Call { id: Id::new(), purpose };
            assert_eq!(Call::parse(&call.to_bytes()), Ok(call));
        }
    }

    #[test]
    fn a_change_of_any_byte_but_the_id_s_is_refused() {
        let call = Call { id: Id::new(), purpose: Purpose::Control }.to_bytes();
        for at in 0..16 {
            let mut changed = call;
            changed[at] ^= 0x80;
            assert!(Call::parse(&changed).is_err(), "byte {at}");
        }
        let mut nobody = call;
        nobody[16..].fill(0);
        assert!(Call::parse(&nobody).is_err());
    }
}

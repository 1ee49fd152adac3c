//! What can be wrong with an image file.

/// What is wrong with an image file. Offsets and sizes are in bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageFault {
    /// There is no such file.
    #[error("it does not exist")]
    Missing,
    /// A directory, link, pipe or device has its name.
    #[error("it is not a regular file")]
    NotAFile,
    /// Its first words are not those of its kind.
    #[error("it has {found:#010x} at byte {offset} where {expected:#010x} is due")]
    Magic {
        /// Where the word begins.
        offset: u64,
        /// The word there.
        found: u32,
        /// The word that belongs there.
        expected: u32,
    },
    /// It ends before its last record does.
    #[error("it ends in the middle of what begins at byte {offset}")]
    Truncated {
        /// Where the cut piece begins.
        offset: u64,
    },
    /// A record is larger than any that CRIU writes.
    #[error("the record at byte {offset} has {size} bytes, and at most {limit} are read")]
    RecordTooLarge {
        /// Where the record begins.
        offset: u64,
        /// Its size, as it says.
        size: u32,
        /// The most that is read.
        limit: u32,
    },
    /// It has more records than any image can.
    #[error("it has more than {limit} records")]
    TooManyRecords {
        /// The most that are read.
        limit: u64,
    },
    /// It has no record where one is due.
    #[error("it has no record")]
    NoRecord,
    /// Something follows what should be its end.
    #[error("it should end at byte {offset}")]
    Surplus {
        /// Where it should end.
        offset: u64,
    },
    /// A record cannot be decoded.
    #[error("the record at byte {offset} is not a {message}")]
    Undecodable {
        /// Where the record begins.
        offset: u64,
        /// The protobuf message that it should be.
        message: &'static str,
        /// What speaks against it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

//! Tests over a set that the real CRIU made: `tests/images/tree`, by `tests/images/make`.

mod properties;
mod readers;
mod whole_set;

use std::path::{Path, PathBuf};

use protobuf::Message;
use tempfile::TempDir;

use super::*;

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/tree")
}

fn good() -> Images {
    Images::open(tree()).expect("the tree is part of the source")
}

/// A copy of the tree to break.
fn copy() -> (TempDir, Images) {
    let home = TempDir::new().expect("a temporary directory");
    for entry in std::fs::read_dir(tree()).expect("the tree is part of the source") {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), home.path().join(entry.file_name())).expect("copied");
    }
    let images = Images::open(home.path()).expect("just made");
    (home, images)
}

/// Every image of the tree that has records.
fn image_files() -> Vec<(String, Kind, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(tree())
        .expect("the tree is part of the source")
        .filter_map(|entry| {
            let name = entry.expect("readable").file_name().into_string().expect("CRIU's names are ASCII");
            let (kind, _) = Kind::of(&name)?;
            let bytes = std::fs::read(tree().join(&name)).expect("readable");
            Some((name, kind, bytes))
        })
        .collect();
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files
}

fn walk_bytes(kind: Kind, bytes: &[u8]) -> Result<u64> {
    Reader::new(bytes, bytes.len() as u64, PathBuf::from("image"), kind).and_then(|reader| walk::walk(reader, kind))
}

/// The image that holds these messages.
fn image<'a>(kind: Kind, messages: impl IntoIterator<Item = &'a dyn protobuf::MessageDyn>) -> Vec<u8> {
    let mut bytes: Vec<u8> = kind.header().into_iter().flatten().flat_map(u32::to_le_bytes).collect();
    for message in messages {
        let record = message.write_to_bytes_dyn().expect("all that is required is set");
        bytes.extend(u32::try_from(record.len()).expect("small").to_le_bytes());
        bytes.extend(record);
    }
    bytes
}

fn messages<M: Message>(kind: Kind, bytes: &[u8]) -> Vec<M> {
    let mut reader = Reader::new(bytes, bytes.len() as u64, PathBuf::from("image"), kind).expect("a good header");
    std::iter::from_fn(|| reader.message().expect("a good record")).collect()
}

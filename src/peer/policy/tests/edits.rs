//! The parts of images that are edited.

use protobuf::{EnumOrUnknown, MessageField};

use super::*;
use crate::proto::images::core::{Task_core_entry, Thread_core_entry};
use crate::proto::images::creds::Creds_entry;
use crate::proto::images::inventory::Inventory_entry;
use crate::proto::images::mm::Mm_entry;
use crate::proto::images::regfile::Reg_file_entry;
use crate::proto::images::remap_file_path::Remap_file_path_entry;
use crate::proto::images::sk_inet::Inet_sk_entry;

impl Set {
    pub(super) fn task(&self, change: impl FnOnce(&mut Task_core_entry)) {
        self.edit::<Core_entry>(&self.root(), |cores| change(cores[0].tc.as_mut().expect("a task")));
    }

    pub(super) fn thread(&self, change: impl FnOnce(&mut Thread_core_entry)) {
        self.edit::<Core_entry>(&self.root(), |cores| change(cores[0].thread_core.as_mut().expect("a thread")));
    }

    pub(super) fn credentials(&self, change: impl FnOnce(&mut Creds_entry)) {
        self.thread(|thread| change(thread.creds.as_mut().expect("credentials")));
    }

    pub(super) fn inventory(&self, change: impl FnOnce(&mut Inventory_entry)) {
        self.edit::<Inventory_entry>("inventory.img", |all| change(&mut all[0]));
    }

    pub(super) fn files(&self, change: impl FnOnce(&mut Vec<File_entry>)) {
        self.edit("files.img", change);
    }

    /// The file with a path that ends so.
    pub(super) fn path(&self, end: &str, change: impl FnOnce(&mut Reg_file_entry)) {
        self.files(|files| {
            let mut paths = files.iter_mut().filter_map(|file| file.reg.as_mut());
            change(paths.find(|file| file.name().ends_with(end.as_bytes())).expect("such a file"));
        });
    }

    pub(super) fn moved(&self, end: &str, to: impl AsRef<Path>) {
        let to = to.as_ref().to_str().expect("UTF-8").as_bytes().to_vec();
        self.path(end, |file| file.set_name(to));
    }

    pub(super) fn listener(&self, change: impl FnOnce(&mut Inet_sk_entry)) {
        self.files(|files| {
            change(files.iter_mut().find_map(|file| file.isk.as_mut()).expect("a socket"));
        });
    }

    pub(super) fn memory(&self, change: impl FnOnce(&mut Mm_entry)) {
        self.edit::<Mm_entry>(&self.root().replace("core", "mm"), |all| change(&mut all[0]));
    }

    pub(super) fn ghost(&self, change: impl FnOnce(&mut Ghost_file_entry)) {
        self.edit_head(&self.named("ghost-file-")[0], change);
    }

    pub(super) fn remaps(&self, change: impl FnOnce(&mut Vec<Remap_file_path_entry>)) {
        self.edit("remap-fpath.img", change);
    }

    /// Turns the file with a path that ends so into one of another type, whose part is this.
    pub(super) fn instead(&self, kind: i32, part: u32, content: Vec<u8>) {
        self.files(|files| {
            let file = files.iter_mut().find(|file| file.isk.is_some()).expect("a socket");
            file.isk = MessageField::none();
            file.type_ = Some(EnumOrUnknown::from_i32(kind));
            let id = file.id();
            let content = [message(&[(1, id.into())]), content].concat();
            file.special_fields.mut_unknown_fields().add_length_delimited(part, content);
        });
    }
}

/// Numbers by field.
pub(super) fn message(fields: &[(u32, u64)]) -> Vec<u8> {
    fields.iter().flat_map(|(field, number)| [varint(u64::from(field << 3)), varint(*number)].concat()).collect()
}

/// A field of bytes.
pub(super) fn bytes(field: u32, content: &[u8]) -> Vec<u8> {
    [varint(u64::from(field << 3 | 2)), varint(content.len() as u64), content.to_vec()].concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

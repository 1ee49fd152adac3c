//! Files that were written to before they were needed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use nix::fcntl::{RenameFlags, renameat2};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{Expected, Place};
use crate::error::{Error, Result};
use crate::images::PagemapOf;
use crate::pages::Stop;
use crate::pages::stop::wait;

/// How much is written at once.
const AT_ONCE: usize = 1 << 20;

/// Files full of zeros, each for a pages file to come.
#[derive(Debug, Default)]
pub(super) struct Touched {
    files: Vec<One>,
    made: usize,
}

#[derive(Debug)]
struct One {
    name: String,
    file: File,
    of: Option<PagemapOf>,
    length: u64,
}

impl Touched {
    pub(super) fn add(&mut self, place: &Place, expected: Expected, stop: &Stop) -> Result<()> {
        let Expected { of, bytes: length } = expected;
        let name = format!("touched-{}", self.made);
        let file = place.create(&name)?;
        self.made += 1;
        self.files.push(One { name, file, of, length });
        let Some(One { name, file, .. }) = self.files.last() else { return Ok(()) };
        let zeros = vec![0; AT_ONCE];
        let mut offset = 0;
        while offset < length {
            wait([], stop, Instant::now())?;
            let count = zeros.len().min(usize::try_from(length - offset).unwrap_or(usize::MAX));
            file.write_all_at(&zeros[..count], offset).map_err(Error::io("make room in", place.path.join(name)))?;
            offset += count as u64;
        }
        Ok(())
    }

    /// Makes one of the files a pages file. Its length comes along.
    pub(super) fn claim(&mut self, place: &Place, of: PagemapOf, name: &str) -> Result<Option<(File, u64)>> {
        let own = self.files.iter().position(|one| one.of == Some(of));
        // The largest of the others.
        let other =
            || self.files.iter().enumerate().filter(|(_, one)| one.of.is_none()).max_by_key(|(_, one)| one.length);
        let Some(at) = own.or_else(|| other().map(|(at, _)| at)) else { return Ok(None) };
        let One { name: from, file, length, .. } = self.files.swap_remove(at);
        renameat2(&place.directory, from.as_str(), &place.directory, name, RenameFlags::RENAME_NOREPLACE)
            .map_err(|errno| Error::io("make", place.path.join(name))(errno.into()))?;
        Ok(Some((file, length)))
    }

    /// Removes those that nobody claimed.
    pub(super) fn remove(&mut self, place: &Place) -> Result<()> {
        for One { name, .. } in self.files.drain(..) {
            unlinkat(&place.directory, name.as_str(), UnlinkatFlags::NoRemoveDir)
                .map_err(|errno| Error::io("remove", place.path.join(&name))(errno.into()))?;
        }
        Ok(())
    }
}

//! That all pages of a pagemap are there: in its file of pages, or in that of parent images.

use std::collections::HashSet;
use std::ops::Range;

use super::{Check, Needed, Problem};
use crate::error::{Error, ImageFault, Result};
use crate::images::record::RECORDS_LIMIT;
use crate::images::{Images, PageRange, Pagemap, PagemapOf, Place};

impl Check<'_> {
    /// Checks the pagemap and sizes of what holds its pages, here and in parent images.
    pub(super) fn pages(&mut self, of: PagemapOf, needed: Needed) {
        let Some(pagemap) = self.keep(needed, self.images.pagemap(of)) else { return };
        let walked = one_level(self.images, of, pagemap, self.page_size, None);
        let Some(level) = self.keep(needed, walked) else { return };
        self.level(of, &level);
        if level.elsewhere.is_empty() {
            return;
        }
        let parents = self.in_parents(of, level.elsewhere);
        self.keep(needed, parents);
    }

    /// Follows `parent` from images to images until every page in `wanted` is found.
    fn in_parents(&mut self, of: PagemapOf, mut wanted: Vec<Range<u64>>) -> Result<()> {
        let mut seen = HashSet::new();
        let mut parent = self.images.parent()?;
        let mut first = true;
        while !wanted.is_empty() {
            // A chain that comes back to where it was has no first images.
            let images = match parent {
                Some(images) if seen.insert(identity(&images)?) => images,
                _ => {
                    self.not_in_parent(of, count(&wanted, self.page_size), first);
                    return Ok(());
                }
            };
            let pagemap = match images.pagemap(of) {
                Ok(pagemap) => pagemap,
                Err(Error::Image { source: ImageFault::Missing, .. }) => {
                    self.not_in_parent(of, count(&wanted, self.page_size), false);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let level = one_level(&images, of, pagemap, self.page_size, Some(&wanted))?;
            self.level(of, &level);
            wanted = level.elsewhere;
            parent = images.parent()?;
            first = false;
        }
        Ok(())
    }

    fn level(&mut self, of: PagemapOf, level: &Level) {
        if level.found != level.expected {
            self.problems.add(Problem::Pages {
                file: level.file.clone(),
                pagemap: of.file_name(),
                expected: level.expected,
                found: level.found,
            });
        }
        if level.lazy > 0 {
            self.problems.add(Problem::Lazy { pagemap: of.file_name(), pages: level.lazy / self.page_size });
        }
        if level.lost > 0 {
            self.not_in_parent(of, level.lost / self.page_size, false);
        }
    }

    fn not_in_parent(&mut self, of: PagemapOf, pages: u64, no_parent: bool) {
        self.problems.add(Problem::NotInParent { pagemap: of.file_name(), pages, no_parent });
    }
}

fn count(ranges: &[Range<u64>], page_size: u64) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum::<u64>() / page_size
}

/// What a pagemap says and its file of pages has. All in bytes.
struct Level {
    /// The name of the file of pages.
    file: String,
    expected: u64,
    found: u64,
    /// Wanted and with a page server.
    lazy: u64,
    /// Wanted and not mentioned.
    lost: u64,
    /// Wanted and in the parent images.
    elsewhere: Vec<Range<u64>>,
}

/// Walks one pagemap, looking for `wanted` pages, or for all that it has.
fn one_level(
    images: &Images,
    of: PagemapOf,
    pagemap: Pagemap,
    page_size: u64,
    wanted: Option<&[Range<u64>]>,
) -> Result<Level> {
    let file = format!("pages-{}.img", pagemap.pages_id());
    let too_many = || {
        let path = images.path.join(of.file_name());
        Error::Image { path, source: ImageFault::TooManyRecords { limit: RECORDS_LIMIT } }
    };
    let mut level = Level { file, expected: 0, found: 0, lazy: 0, lost: 0, elsewhere: Vec::new() };
    let mut sweep = wanted.map(Sweep::new);
    for range in pagemap {
        let PageRange { address, pages, place } = range?;
        let bytes = pages.saturating_mul(page_size);
        let whole = address..address.saturating_add(bytes);
        if place == Place::Stored {
            level.expected = level.expected.saturating_add(bytes);
        }
        let take = |piece: Range<u64>| match place {
            Place::Stored => {}
            Place::Lazy => level.lazy += piece.end - piece.start,
            Place::Parent => join(&mut level.elsewhere, piece),
        };
        match &mut sweep {
            Some(sweep) => sweep.take(whole, take),
            None => std::iter::once(whole).for_each(take),
        }
        if level.elsewhere.len() as u64 > RECORDS_LIMIT {
            return Err(too_many());
        }
    }
    level.lost = sweep.map_or(0, Sweep::rest);
    level.found = match images.file(&level.file) {
        Ok((_, found)) => found,
        // Where no page is due, no file is.
        Err(Error::Image { source: ImageFault::Missing, .. }) if level.expected == 0 => 0,
        Err(error) => return Err(error),
    };
    Ok(level)
}

/// Adds a range, as part of the one before where it follows that.
fn join(ranges: &mut Vec<Range<u64>>, piece: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == piece.start => last.end = piece.end,
        _ => ranges.push(piece),
    }
}

/// Sorted ranges that are looked for in other sorted ranges.
struct Sweep<'a> {
    wanted: &'a [Range<u64>],
    /// Where the first of `wanted` is not yet found.
    position: u64,
    lost: u64,
}

impl<'a> Sweep<'a> {
    fn new(wanted: &'a [Range<u64>]) -> Self {
        Self { wanted, position: wanted.first().map_or(0, |range| range.start), lost: 0 }
    }

    /// Gives `found` the pieces of `range` that are wanted. Ranges come sorted.
    fn take(&mut self, range: Range<u64>, mut found: impl FnMut(Range<u64>)) {
        while let Some(first) = self.wanted.first() {
            if self.position < range.start {
                let gap = first.end.min(range.start);
                self.lost += gap - self.position;
                self.position = gap;
            }
            if self.position < first.end {
                if self.position >= range.end {
                    return;
                }
                let piece = self.position..first.end.min(range.end);
                self.position = piece.end;
                if !piece.is_empty() {
                    found(piece);
                }
            }
            if self.position < first.end {
                return;
            }
            self.wanted = &self.wanted[1..];
            self.position = self.wanted.first().map_or(0, |next| next.start);
        }
    }

    /// How many bytes were in no range.
    fn rest(self) -> u64 {
        let Some((first, others)) = self.wanted.split_first() else { return self.lost };
        self.lost + (first.end - self.position) + others.iter().map(|range| range.end - range.start).sum::<u64>()
    }
}

/// The device and inode of a directory of images.
fn identity(images: &Images) -> Result<(u64, u64)> {
    let stat = nix::sys::stat::fstat(images).map_err(|errno| Error::io("look at", images.path())(errno.into()))?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one range is what is meant")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sweep(wanted: &[Range<u64>], ranges: &[Range<u64>]) -> (Vec<Range<u64>>, u64) {
        let mut found = Vec::new();
        let mut sweep = Sweep::new(wanted);
        ranges.iter().for_each(|range| sweep.take(range.clone(), |piece| found.push(piece)));
        (found, sweep.rest())
    }

    #[test]
    fn one_range_serves_many_and_many_serve_one() {
        assert_eq!(sweep(&[1..2, 4..6], &[0..10]), (vec![1..2, 4..6], 0));
        assert_eq!(sweep(&[0..10], &[1..2, 2..3, 5..20]), (vec![1..2, 2..3, 5..10], 3));
    }

    #[test]
    fn what_is_in_no_range_is_lost() {
        assert_eq!(sweep(&[0..4], &[]), (vec![], 4));
        assert_eq!(sweep(&[0..4, 6..8], &[8..9]), (vec![], 6));
        assert_eq!(sweep(&[0..4], &[2..3]), (vec![2..3], 3));
    }

    /// Sorted ranges that do not touch, below 64.
    fn ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
        any::<u64>().prop_map(|bits| {
            let mut ranges: Vec<Range<u64>> = Vec::new();
            (0..64).filter(|place| (bits >> place) & 1 == 1).for_each(|place| join(&mut ranges, place..place + 1));
            ranges
        })
    }

    fn bits(ranges: &[Range<u64>]) -> u64 {
        ranges.iter().flat_map(Clone::clone).fold(0, |bits, place| bits | (1 << place))
    }

    proptest! {
        #[test]
        fn pieces_are_what_both_have_and_the_rest_is_lost(wanted in ranges(), has in ranges()) {
            let (found, lost) = sweep(&wanted, &has);
            prop_assert_eq!(bits(&found), bits(&wanted) & bits(&has));
            prop_assert_eq!(lost, u64::from((bits(&wanted) & !bits(&has)).count_ones()));
        }
    }
}

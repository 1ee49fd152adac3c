//! A block of pages that is copied: which of them are all zero, and the hash of the others.

use std::ops::Range;

use twox_hash::XxHash3_64;

/// How many bytes are copied at once: as much as stays in a cache near the processor.
pub(super) const BLOCK: usize = 256 << 10;

/// The hash of a block: against damage, not against an enemy.
pub(super) fn hash(block: &[u8]) -> u64 {
    XxHash3_64::oneshot(block)
}

/// Where pages of zeros and other pages begin and end in a block of whole pages. Says of each stretch whether it is zeros.
pub(super) fn stretches(block: &[u8], page: usize) -> impl Iterator<Item = (bool, Range<usize>)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let mut pages = block[at..].chunks_exact(page).map(is_zero);
        let first = pages.next()?;
        let count = 1 + pages.take_while(|is_zero| *is_zero == first).count();
        let begin = at;
        at += count * page;
        Some((first, begin..at))
    })
}

fn is_zero(page: &[u8]) -> bool {
    // Most pages that are not show it at once.
    let (first, rest) = page.split_at(page.len().min(64));
    let holds_nothing = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all | byte) == 0;
    holds_nothing(first) && rest.chunks(512).all(holds_nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_cover_a_block_in_order() {
        let page = 4096;
        let mut block = vec![0; 6 * page];
        block[page] = 1;
        block[3 * page - 1] = 1;
        block[5 * page + 700] = 1;
        let found: Vec<_> = stretches(&block, page).collect();
        assert_eq!(
            found,
            [(true, 0..page), (false, page..3 * page), (true, 3 * page..5 * page), (false, 5 * page..6 * page)]
        );
        assert_eq!(stretches(&[], page).count(), 0);
    }
}

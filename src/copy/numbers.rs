//! Which PIDs CRIU and its own children get in a new PID namespace: none of those that the tree is to have.

use std::collections::BTreeSet;

/// So many numbers in a row that the tree does not need are enough for CRIU and all that it starts.
const ENOUGH: i32 = 1024;

/// The kernel begins anew here when it has given out the last one.
const FIRST: i32 = 300;

/// The number that the kernel shall believe to have given last, so that none of `taken` is among the next: before the first gap
/// that is wide enough, else the widest.
pub(super) fn last_before_gap(taken: &BTreeSet<i32>, largest: i32) -> i32 {
    let mut widest = (0, FIRST);
    let mut after = FIRST;
    for number in taken.iter().copied().filter(|number| *number > FIRST).chain([largest]) {
        let width = number - after - 1;
        if width >= ENOUGH {
            return after;
        }
        widest = widest.max((width, after));
        after = number;
    }
    widest.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_numbers_are_none_of_the_trees() {
        let table: [(&[i32], i32, i32); 6] = [
            (&[], 32768, 300),
            (&[7, 12], 32768, 300),
            (&[301], 32768, 301),
            (&[500, 1000, 1500], 32768, 1500),
            (&[2000], 32768, 300),
            // Nowhere is there much room.
            (&[900, 1100, 2000], 2500, 1100),
        ];
        for (taken, largest, expected) in table {
            let taken = taken.iter().copied().collect();
            assert_eq!(last_before_gap(&taken, largest), expected, "{taken:?}");
        }
    }
}

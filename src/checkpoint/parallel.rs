//! The same work for many files, on as many threads as pay.

use std::sync::{Mutex, PoisonError};

/// More threads than this that hash only compete for memory bandwidth.
const HASHING_LIMIT: usize = 8;
/// Below this many bytes in all, starting a thread to hash costs more than it saves.
const HASHING_FROM_BYTES: u64 = 4 << 20;
/// What a thread needs here: buffers are on the heap.
const STACK_BYTES: usize = 128 << 10;

/// Reads and hashes files, the largest first; the sizes are in bytes.
pub(super) fn hashed_in_parallel<K: Send, T: Send>(
    mut files: Vec<(K, u64)>,
    work: impl Fn(&K) -> T + Sync,
) -> Vec<(K, T)> {
    let total: u64 = files.iter().map(|(_, size)| size).sum();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if total < HASHING_FROM_BYTES { 1 } else { processors.min(HASHING_LIMIT) };
    files.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    in_parallel(files.into_iter().map(|(key, _)| key).collect(), threads, work)
}

/// Does the work for each key, in about this order, on up to this many threads.
pub(super) fn in_parallel<K: Send, T: Send>(
    keys: Vec<K>,
    threads: usize,
    work: impl Fn(&K) -> T + Sync,
) -> Vec<(K, T)> {
    let threads = threads.min(keys.len());
    let (queue, done) = (Mutex::new(keys.into_iter()), Mutex::new(Vec::new()));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        while let Some(key) = next() {
            let result = work(&key);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((key, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // A thread that cannot be started leaves its share to the others.
            drop(std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run));
        }
        run();
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_worked_on_once_whatever_the_number_of_threads() {
        for threads in [0, 1, 3, 100] {
            let mut done = in_parallel((0..50).collect(), threads, |key: &u32| key * 2);
            done.sort_unstable();
            assert_eq!(done, (0..50).map(|key| (key, key * 2)).collect::<Vec<_>>(), "{threads}");
        }
    }

    #[test]
    fn the_work_is_done_at_the_same_time() {
        // Each waits for the other, so that one thread alone would never end.
        let barrier = std::sync::Barrier::new(2);
        let done = in_parallel(vec![1, 2], 2, |_| barrier.wait().is_leader());
        assert_eq!(done.iter().filter(|(_, leader)| *leader).count(), 1);
    }
}

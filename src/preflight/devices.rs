//! Device files.

use nix::sys::stat::{major, minor};

use super::terminals::terminal;

/// Whether CRIU can dump an open character device with this number: the memory devices (null, zero, full, random,
/// urandom, kmsg…), /dev/net/tun, /dev/autofs and terminals.
pub(super) fn is_supported(device: u64) -> bool {
    const MEMORY: u64 = 1;
    const MISCELLANEOUS: u64 = 10;
    const TUN: u64 = 200;
    const AUTOFS: u64 = 235;
    match major(device) {
        MEMORY => true,
        MISCELLANEOUS if matches!(minor(device), TUN | AUTOFS) => true,
        _ => terminal(device).is_some(),
    }
}

/// Whether it is /dev/net/tun.
pub(super) fn is_tun(device: u64) -> bool {
    (major(device), minor(device)) == (10, 200)
}

/// Whether an open character device is dumped as a path, like a regular file.
pub(super) fn is_dumped_by_path(device: u64) -> bool {
    is_supported(device) && !is_tun(device)
}

/// What to do about a device, by what it is.
pub(super) fn cure(device: u64) -> &'static str {
    match (major(device), minor(device)) {
        (10, 232) => "a virtual machine's /dev/kvm cannot be saved: use the monitor's own snapshots",
        (10, 229) => "a FUSE server cannot be saved while it serves: unmount its file system first",
        (226, _) => "a graphics device cannot be saved: end the part that draws, or run it without acceleration",
        (195, _) => "an NVIDIA device needs CRIU's CUDA plugin",
        (4, 64..=255) => "a serial line cannot be saved: close it, or connect to it through another program",
        (116, _) => "a sound device cannot be saved: play through a sound server",
        (13, _) => "an input device cannot be saved: close it",
        _ => "close the device before the dump: CRIU can save no state of it",
    }
}

/// Whether a mapping of a character device can be dumped: only /dev/zero's.
pub(super) fn is_zero(device: u64) -> bool {
    (major(device), minor(device)) == (1, 5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::makedev;

    #[test]
    fn the_devices_that_criu_can_dump_are_told_from_those_it_cannot() {
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (1, 11), (10, 200), (10, 235), (5, 0), (136, 1)]
        {
            assert!(is_supported(makedev(major, minor)), "{major}:{minor}");
        }
        for (major, minor) in [(10, 229), (10, 232), (4, 64), (226, 0), (250, 1), (13, 64)] {
            assert!(!is_supported(makedev(major, minor)), "{major}:{minor}");
            assert!(cure(makedev(major, minor)).len() > 20);
        }
        assert!(is_dumped_by_path(makedev(1, 3)) && !is_dumped_by_path(makedev(10, 200)));
        assert!(is_zero(makedev(1, 5)) && !is_zero(makedev(1, 3)));
    }
}

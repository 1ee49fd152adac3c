//! /proc/PID/maps: what of a task's memory a dump cannot take for granted.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::lines::{decimal, hexadecimal};
use super::mount::device_number;

/// Mappings out of the ordinary that are kept for one task; a task with more has the first ones named.
const NOTABLE_LIMIT: usize = 4096;

/// What a mapping is, as far as a checkpoint is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingKind {
    /// A file that has a name.
    File,
    /// A file below /dev, which may be a device.
    Device,
    /// A file whose name is gone.
    Deleted,
    /// SysV shared memory.
    SysV,
    /// A memfd.
    Memfd,
    /// Shared anonymous memory.
    SharedAnonymous,
    /// The memory of a parasite that a killed CRIU left behind.
    Parasite,
    /// An object of the kernel with no name, such as io_uring's rings.
    KernelObject,
    /// The ring of a packet socket.
    Socket,
    /// The page that uprobes run from.
    Uprobes,
}

/// A mapping that is not plain private memory or one of the kernel's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its first address.
    pub start: u64,
    /// The address behind its last.
    pub end: u64,
    /// What it is.
    pub kind: MappingKind,
    /// Whether writes are shared.
    pub shared: bool,
    /// Whether it may be written.
    pub writable: bool,
    /// The device of the file.
    pub device: u64,
    /// The inode of the file.
    pub inode: u64,
    /// The file, without the kernel's ` (deleted)`.
    pub path: PathBuf,
}

impl Mapping {
    /// Parses one line. `None` for private anonymous memory, the kernel's own mappings (`[stack]`, `[vdso]`…) and text of
    /// another form.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let range = fields.next()?;
        let rights = fields.next()?;
        let _offset = fields.next()?;
        let device = fields.next()?;
        let inode: u64 = decimal(fields.next()?)?;
        let path = fields.next().unwrap_or_default().trim_ascii_start();
        if path.is_empty() || (path.starts_with(b"[") && path != b"[uprobes]") {
            return None;
        }
        let dash = range.iter().position(|byte| *byte == b'-')?;
        let colon = device.iter().position(|byte| *byte == b':')?;
        let major = u32::try_from(hexadecimal(&device[..colon])?).ok()?;
        let minor = u32::try_from(hexadecimal(&device[colon + 1..])?).ok()?;
        let stripped = path.strip_suffix(b" (deleted)");
        let name = stripped.unwrap_or(path);
        Some(Self {
            start: hexadecimal(&range[..dash])?,
            end: hexadecimal(&range[dash + 1..])?,
            kind: kind_of(name, stripped.is_some()),
            shared: rights.get(3) == Some(&b's'),
            writable: rights.get(1) == Some(&b'w'),
            device: device_number(major, minor),
            inode,
            path: PathBuf::from(OsStr::from_bytes(name)),
        })
    }

    /// How many bytes it spans.
    pub fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Whether a line is of a mapping that begins at address 0 and may be executed.
fn runs_at_zero(line: &[u8]) -> bool {
    // The kernel writes eight digits at least.
    let Some(rest) = line.strip_prefix(b"00000000-") else { return false };
    rest.split(|byte| *byte == b' ').nth(1).is_some_and(|rights| rights.get(2) == Some(&b'x'))
}

fn kind_of(name: &[u8], deleted: bool) -> MappingKind {
    if name == b"[uprobes]" {
        MappingKind::Uprobes
    } else if name.starts_with(b"/memfd:CRIUMFD") {
        MappingKind::Parasite
    } else if name.starts_with(b"/memfd:") || name == b"/anon_hugepage" {
        MappingKind::Memfd
    } else if name == b"/dev/zero" && deleted {
        MappingKind::SharedAnonymous
    } else if name == b"/[aio]" {
        // CRIU rebuilds the rings of Linux AIO.
        MappingKind::SharedAnonymous
    } else if deleted && name.starts_with(b"/SYSV") {
        MappingKind::SysV
    } else if name.starts_with(b"socket:") {
        MappingKind::Socket
    } else if !name.starts_with(b"/") {
        MappingKind::KernelObject
    } else if deleted {
        MappingKind::Deleted
    } else if name.starts_with(b"/dev/") && !name.starts_with(b"/dev/shm/") {
        MappingKind::Device
    } else {
        MappingKind::File
    }
}

/// A piece of shared memory, by the inode that all who map it see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Its inode.
    pub inode: u64,
    /// How much of it the task maps.
    pub bytes: u64,
}

/// The memory of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// How many mappings it has.
    pub mappings: u32,
    /// Those that a dump cannot take for granted; plain files are left to [`Tree::mapped_files`](super::Tree).
    pub notable: Vec<Mapping>,
    /// Shared memory it maps.
    pub segments: Vec<Segment>,
    /// Whether it has the kernel's vDSO.
    pub has_vdso: bool,
    /// Whether it may run code at address 0 (`MMAP_PAGE_ZERO`).
    pub runs_at_zero: bool,
}

impl Memory {
    /// Reads the memory of process `pid`.
    ///
    /// # Errors
    /// What the system says when /proc/PID/maps cannot be read.
    pub fn read(pid: i32) -> std::io::Result<Self> {
        let mut memory = Self::default();
        super::lines::Lines::new().each(format!("/proc/{pid}/maps"), |line| {
            memory.take(line);
        })?;
        Ok(memory)
    }

    /// How many mappings of process `pid` are sealed (mseal(2)), not counting the kernel's own. Reads /proc/PID/smaps, which
    /// costs some 10 µs for each mapping and 10 ns for each page in RAM.
    ///
    /// # Errors
    /// What the system says when that file cannot be read.
    pub fn sealed(pid: i32) -> std::io::Result<usize> {
        let mut count = SealedCount::default();
        super::lines::Lines::new().each(format!("/proc/{pid}/smaps"), |line| count.take(line))?;
        Ok(count.sealed)
    }

    /// Takes one line of /proc/PID/maps, and gives back the mapping of a plain file.
    pub(super) fn take(&mut self, line: &[u8]) -> Option<Mapping> {
        self.mappings = self.mappings.saturating_add(1);
        self.has_vdso |= line.ends_with(b"[vdso]");
        self.runs_at_zero |= runs_at_zero(line);
        let mapping = Mapping::parse(line)?;
        if matches!(mapping.kind, MappingKind::SysV | MappingKind::Memfd | MappingKind::SharedAnonymous)
            && mapping.shared
        {
            match self.segments.iter_mut().find(|segment| segment.inode == mapping.inode) {
                Some(segment) => segment.bytes = segment.bytes.saturating_add(mapping.bytes()),
                None => self.segments.push(Segment { inode: mapping.inode, bytes: mapping.bytes() }),
            }
        }
        match mapping.kind {
            MappingKind::File => Some(mapping),
            MappingKind::SharedAnonymous => None,
            _ => {
                if self.notable.len() < NOTABLE_LIMIT {
                    self.notable.push(mapping);
                }
                None
            }
        }
    }
}

/// Counts the sealed mappings in the lines of smaps.
#[derive(Default)]
struct SealedCount {
    of_the_kernel: bool,
    sealed: usize,
}

impl SealedCount {
    fn take(&mut self, line: &[u8]) {
        if let Some(flags) = line.strip_prefix(b"VmFlags:") {
            let sealed = super::lines::words(flags).any(|flag| flag == b"sl");
            self.sealed += usize::from(sealed && !self.of_the_kernel);
        } else if line.first().is_some_and(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)) {
            // The head of the next mapping: all other lines begin with a capital letter.
            self.of_the_kernel =
                [&b"[vdso]"[..], b"[vvar]", b"[vvar_vclock]", b"[vsyscall]", b"[sigpage]", b"[uprobes]"]
                    .iter()
                    .any(|name| line.ends_with(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_kind_of_mapping_is_told_apart() {
        use MappingKind::*;
        let table = [
            ("7f00-7f10 r-xp 00000000 fe:00 42                         /usr/lib/a b.so", Some(File)),
            ("7f00-7f10 r-xp 00000000 fe:00 42                         /usr/lib/old.so (deleted)", Some(Deleted)),
            ("7f00-7f10 rw-s 00000000 00:01 5                          /dev/zero (deleted)", Some(SharedAnonymous)),
            ("7f00-7f10 rw-s 00000000 00:05 5                          /dev/zero", Some(Device)),
            ("7f00-7f10 rw-s 00000000 00:18 5                          /dev/shm/seg", Some(File)),
            ("7f00-7f10 rw-s 00000000 00:01 32768                      /SYSV00000000 (deleted)", Some(SysV)),
            ("7f00-7f10 rw-s 00000000 00:01 9                          /memfd:x (deleted)", Some(Memfd)),
            ("7f00-7f10 r-xs 00000000 00:01 9                          /memfd:CRIUMFD (deleted)", Some(Parasite)),
            ("7f00-7f10 rw-s 00000000 00:0e 9                          anon_inode:[io_uring]", Some(KernelObject)),
            ("7f00-7f10 rw-s 00000000 00:08 9                          socket:[77]", Some(Socket)),
            ("7f00-7f10 --xp 00000000 00:00 0                          [uprobes]", Some(Uprobes)),
            ("7f00-7f10 rw-s 00000000 00:10 9                          /[aio] (deleted)", Some(SharedAnonymous)),
            ("7f00-7f10 rw-p 00000000 00:00 0                          [heap]", None),
            ("7f00-7f10 rw-p 00000000 00:00 0                          [anon:glibc]", None),
            ("7f00-7f10 rw-p 00000000 00:00 0 ", None),
            ("7f00-7f10 rw-p 00000000 00:00 0", None),
            ("nonsense", None),
        ];
        for (line, kind) in table {
            assert_eq!(Mapping::parse(line.as_bytes()).map(|mapping| mapping.kind), kind, "{line}");
        }
    }

    #[test]
    fn code_at_address_zero_is_noticed() {
        let runs = |line: &str| {
            let mut memory = Memory::default();
            memory.take(line.as_bytes());
            memory.runs_at_zero
        };
        assert!(runs("00000000-00001000 r-xp 00000000 00:00 0 "));
        for other in [
            "00000000-00001000 rw-p 00000000 00:00 0 ",
            "00001000-00002000 r-xp 00000000 00:00 0 ",
            "00400000-00401000 r-xp 00000000 fe:00 42 /bin/true",
            "0",
        ] {
            assert!(!runs(other), "{other}");
        }
    }

    #[test]
    fn a_segment_that_is_mapped_in_two_pieces_is_one() {
        let mut memory = Memory::default();
        for line in [
            "1000-3000 rw-s 00000000 00:01 5 /dev/zero (deleted)",
            "5000-6000 rw-s 00002000 00:01 5 /dev/zero (deleted)",
        ] {
            assert_eq!(memory.take(line.as_bytes()), None);
        }
        assert_eq!(memory.segments, [Segment { inode: 5, bytes: 0x3000 }]);
        assert_eq!(memory.mappings, 2);
        assert_eq!(memory.notable, []);
    }

    #[test]
    fn sealed_mappings_are_counted_without_those_of_the_kernel() {
        let text = "7f00-7f10 r-xp 00000000 fe:00 42   /usr/lib/a.so\nSize: 4 kB\nVmFlags: rd ex mr mw me \n\
                    7f10-7f20 r--p 00000000 00:00 0 \nVmFlags: rd mr sl \n\
                    7f20-7f30 r-xp 00000000 00:00 0 [vdso]\nVmFlags: rd ex sl \n";
        let mut count = SealedCount::default();
        text.lines().for_each(|line| count.take(line.as_bytes()));
        assert_eq!(count.sealed, 1);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Mapping::parse(&text);
        }

        #[test]
        fn no_almost_good_line_makes_the_parser_panic(line in "[0-9a-f]{0,3}-?[0-9a-f]{0,17} r?w?.{0,3} [0-9a-f]{0,4} [0-9a-f]{0,9}:?[0-9a-f]{0,9} [0-9]{0,22} {0,3}.{0,12}( \\(deleted\\))?") {
            let _ = Mapping::parse(line.as_bytes());
        }
    }
}
